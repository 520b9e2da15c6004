"""What does not fit is one line before anything is allocated, by the arithmetic of `vqlcmd plan`."""

import dataclasses
import re

import pytest
import torch

from tests.costs.test_flops import CODES, TINY, TOKENS
from tests.factory import METHODS, build, integers, params
from tests.tokenizers import SMALL
from vqlcmd.costs import available, fitting, memory
from vqlcmd.costs.flops import MethodCosts
from vqlcmd.params.vqgan import VqganFit
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.tokenizer.vqgan import VQGAN

CPU = torch.device("cpu")


def costs(**overrides: object) -> MethodCosts:
    found = params(**{**TINY, **overrides})
    return memory.method_costs(
        found.model_part(), found.sampling(), tokens=TOKENS, codes=CODES, codebook_dim=7, classes=3
    )


def allow(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(available, "free_memory", lambda device: free)


def test_training_that_fits_is_let_run_and_one_byte_less_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = costs()
    needed = memory.training_memory(found, on_cpu=True)
    enough = needed.fixed + 2 * found.buffers + 4 * needed.per_image
    allow(monkeypatch, enough)
    memory.require_training(found, 4, CPU)
    allow(monkeypatch, enough - 1)
    with pytest.raises(ConfigError, match=r"VQLCMD_MICRO_BATCH=3 .*|4 images") as raised:
        memory.require_training(found, 4, CPU)
    assert "\n" not in str(raised.value)
    allow(monkeypatch, needed.fixed)
    with pytest.raises(ConfigError, match=r"lower network.width"):
        memory.require_training(found, 4, CPU)


def test_a_network_of_ten_thousand_wide_blocks_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"training takes at least [\d,.]+ GB: .* are free"):
        memory.require_training(costs(network={**TINY["network"], "layers": 10**4, "width": 16_384}), 1, CPU)


def test_what_a_chain_keeps_of_its_steps_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    long = costs(method="d3pm", discrete={"timesteps": 10**6})
    assert long.buffers > 16 * 10**6
    allow(monkeypatch, 10**7)
    with pytest.raises(ConfigError, match=r"discrete\.timesteps"):
        memory.require_training(long, 1, CPU)


def test_in_bf16_half_of_the_activations_may_be_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = costs(train={"precision": "bf16"})
    needed = memory.training_memory(found, on_cpu=True)
    allow(monkeypatch, needed.fixed + 2 * found.buffers + 2 * needed.per_image)
    memory.require_training(found, 4, CPU)


@pytest.mark.parametrize("name", METHODS)
def test_a_sample_takes_at_least_what_its_largest_layer_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same layers with numbers: what goes into one and comes out of it, for a batch of three."""
    found = costs(method=name, guidance=1.5)
    sizes = []

    def look(_: object, given: tuple[object, ...], out: object) -> None:
        sizes.append(sum(each.nbytes for each in (*given, out) if isinstance(each, torch.Tensor)))

    method = build(tokens=TOKENS, codes=CODES, classes=3, **{**TINY, "method": name, "guidance": 1.5}).eval()
    for module in method.modules():
        module.register_forward_hook(look)
    how = params(**{**TINY, "method": name, "guidance": 1.5}).sampling()
    method.sample(integers(3, 3), CounterRNG(0, "sample", torch.arange(3)), how)
    assert max(sizes) == 3 * found.sampling_bytes
    allow(monkeypatch, 2 * found.sampling_bytes)
    memory.require_sampling(found, 2, CPU)
    with pytest.raises(ConfigError, match=re.escape("set sample.batch_size to 2 or less")):
        memory.require_sampling(found, 10**9, CPU)
    allow(monkeypatch, 5 * found.bound_bytes)
    memory.require_bound(found, 5, CPU)
    with pytest.raises(ConfigError, match=re.escape("set bound.batch_size to 5 or less")):
        memory.require_bound(found, 6, CPU)


def fit(batch_size: int) -> VqganFit:
    return params().vqgan.fit.model_copy(update={"batch_size": batch_size})


def test_a_vqgan_that_fits_is_fitted_and_one_image_more_at_once_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What enters the layers with weights of a VQGAN with numbers is the least that its gradients need."""
    vqgan, entered = VQGAN(SMALL), {}

    def look(_: object, given: tuple[torch.Tensor, ...], __: object) -> None:
        entered[id(given[0])] = given[0]

    for layer in vqgan.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.GroupNorm):
            layer.register_forward_hook(look)
    vqgan.decode_latents(vqgan.latents(torch.zeros(1, 3, SMALL.resolution, SMALL.resolution)))
    each = sum(tensor.nbytes for tensor in entered.values())
    fixed = 16 * sum(weight.numel() for weight in vqgan.parameters())
    allow(monkeypatch, fixed + 4 * each)
    fitting.require_fit(SMALL, fit(4), SMALL.resolution, 1, CPU)
    with pytest.raises(ConfigError, match=re.escape("set vqgan.fit.batch_size to 4 or less")):
        fitting.require_fit(SMALL, fit(5), SMALL.resolution, 1, CPU)


def test_k_means_over_more_codes_than_memory_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, 10**10)
    with pytest.raises(ConfigError, match=r"k-means .* 65,536 codes takes at least .* lower vqgan.n_embed"):
        fitting.require_fit(dataclasses.replace(SMALL, n_embed=65_536), fit(1), SMALL.resolution, 10**6, CPU)
