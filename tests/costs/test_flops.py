"""Operations: the closed forms are what PyTorch counts when the thing itself runs."""

import dataclasses
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.factory import METHODS, build, integers, params
from tests.tokenizers import SMALL
from vqlcmd.costs.flops import COSTS, Costs, Sizes, tokenizer_flops
from vqlcmd.costs.plan import FAMILIES, INCEPTION, VGG16, Data, Plan, plan, proxy_flops
from vqlcmd.diffusion.transformer import Transformer
from vqlcmd.rng import CounterRNG
from vqlcmd.tokenizer.blocks import Architecture
from vqlcmd.tokenizer.vqgan import VQGAN

# A network whose every size is another number.
SHAPE = {"layers": 3, "heads": 2, "width": 24, "dropout": 0.1}
TINY: dict[str, Any] = {
    "images": {"size": 16},
    "vqgan": {"ch_mult": [1, 2, 2], "n_embed": 40, "embed_dim": 7},
    "network": SHAPE,
    "embedding_dim": 10,
    "sample_steps": 6,
    "bound": {"levels": 3},
    "discrete": {"timesteps": 12},
}
BATCH, TOKENS, CODES = 4, 16, 40


def counted() -> tuple[FlopCounterMode, Any]:
    """PyTorch's counter. It knows no fused attention of a CPU, so attention has to be plain matrix products."""
    return FlopCounterMode(display=False), sdpa_kernel(SDPBackend.MATH)


def planned(classes: int = 0, **overrides: Any) -> Plan:
    return plan(params(**{**TINY, **overrides}), Data(100, classes))


def made(classes: int = 0, **overrides: Any) -> Any:
    return build(tokens=TOKENS, codes=CODES, classes=classes, **{**TINY, **overrides})


@pytest.mark.parametrize(
    ("sizes", "dropout"),
    [
        (Sizes(tokens=9, codes=7, inputs=6, classes=0, layers=2, heads=2, width=16), 0.0),
        (Sizes(tokens=9, codes=7, inputs=6, classes=3, layers=3, heads=4, width=24), 0.1),
        (Sizes(tokens=256, codes=1024, inputs=256, classes=0, layers=15, heads=8, width=512), 0.1),
    ],
    ids=["small", "small with classes", "56M"],
)
def test_a_pass_and_its_gradients_cost_what_pytorch_counts(sizes: Sizes, dropout: float) -> None:
    counter, plain = counted()
    with counter, plain:
        network = Transformer(**dataclasses.asdict(sizes), dropout=dropout)
        z_BND = torch.zeros(1, sizes.tokens, sizes.inputs, requires_grad=True)
        label = torch.zeros(1, dtype=torch.int64) if sizes.classes else None
        logits = network(z_BND, torch.zeros(1), label)
        assert counter.get_total_flops() == sizes.forward
        logits.sum().backward()
    assert counter.get_total_flops() == sizes.trained


ABLATIONS: list[tuple[dict[str, Any], int]] = [
    *(({"method": name}, 3) for name in METHODS),
    ({"lambda_ce": 0.0}, 0),
    ({"lambda_rec": 0.0}, 3),
    ({"lambda_cm": 0.0, "weighting": "vlb", "drop": 0.0}, 3),
    ({"lambda_rec": 0.0, "lambda_diff": 0.0, "lambda_cm": 0.0, "embedding": "unit"}, 0),
]


@pytest.mark.parametrize(("changes", "classes"), ABLATIONS, ids=str)
def test_a_training_step_costs_what_pytorch_counts(changes: dict[str, Any], classes: int) -> None:
    method, teacher = made(classes, **changes).train(), made(classes, **changes).eval().requires_grad_(False)
    label = integers(3, BATCH) if classes else None
    counter, plain = counted()
    with counter, plain:
        terms = method(integers(CODES, BATCH, TOKENS), label, CounterRNG(0, "train", torch.arange(BATCH), 0), teacher)
        torch.stack([term.mean() for term in terms.values()]).sum().backward()
    assert counter.get_total_flops() == BATCH * planned(classes, **changes).costs.training()


@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize("name", METHODS)
def test_samples_and_bounds_cost_what_pytorch_counts(name: str, guidance: float) -> None:
    changes = {"method": name, "guidance": guidance}
    method, found = made(3, **changes).eval(), planned(3, **changes)
    label, rows = integers(3, BATCH), torch.arange(BATCH)
    counter, plain = counted()
    with counter, plain:
        method.sample(label, CounterRNG(0, "sample", rows), found.params.sampling())
    assert counter.get_total_flops() == BATCH * found.costs.sampling(found.calls)
    counter, plain = counted()
    with counter, plain:
        method.bound(integers(CODES, BATCH, TOKENS), label, CounterRNG(0, "bound", rows), found.params.bound.levels)
    assert counter.get_total_flops() == BATCH * found.costs.bound()


def test_at_the_papers_size_vq_lcmd_trains_at_eight_passes_and_the_others_at_three() -> None:
    sizes = Sizes(tokens=256, codes=1024, inputs=256, classes=0, layers=15, heads=8, width=512)
    for name in METHODS:
        passes = COSTS.get(name, Costs)(params(method=name), sizes).training() / sizes.forward
        assert passes == pytest.approx(8 if name == "lcmd" else 3, rel=0.01)


SHAPES = [(Architecture(), 64), (SMALL, 16), (SMALL, 32)]
SHAPES += [
    (dataclasses.replace(SMALL, embed_dim=SMALL.z_channels, variant=variant), 16) for variant in FAMILIES.values()
]


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_the_tokenizer_costs_what_pytorch_counts(shape: Architecture, size: int) -> None:
    counter, plain = counted()
    with counter, plain:
        tokenizer = VQGAN(shape)
        tokenizer.encode(torch.zeros(1, 3, size, size))
        encode = counter.get_total_flops()
        side = size // shape.downsampling
        tokenizer.decode_latents(torch.zeros(1, shape.embed_dim, side, side))
    assert tokenizer_flops(shape, size) == (encode, counter.get_total_flops() - encode)


@pytest.mark.slow
def test_inception_costs_what_pytorch_counts_in_torchvisions_network_of_the_same_layers() -> None:
    from vqlcmd.runtime.torchvision_guard import guard_torchvision

    guard_torchvision()
    from torchvision.models import inception_v3

    counter, _ = counted()
    with FakeTensorMode(), counter:
        network = inception_v3(weights=None, num_classes=INCEPTION[1], aux_logits=False, init_weights=False).eval()
        network(torch.zeros(1, 3, 299, 299))
    assert counter.get_total_flops() == INCEPTION[2]


@pytest.mark.slow
def test_vgg16_costs_what_pytorch_counts_in_torchvisions_network_without_its_last_layer() -> None:
    from vqlcmd.runtime.torchvision_guard import guard_torchvision

    guard_torchvision()
    from torchvision.models import vgg16

    counter, _ = counted()
    with FakeTensorMode(), counter:
        network = vgg16(weights=None, init_weights=False).eval()
        network.classifier[6] = torch.nn.Identity()
        assert network(torch.zeros(1, 3, 224, 224)).shape[1] == VGG16[0]
    assert counter.get_total_flops() == VGG16[2]


def test_the_proxy_classifier_costs_what_pytorch_counts_but_for_its_head() -> None:
    from vqlcmd.evaluation.proxy_classifier import ProxyClassifier

    for size in (16, 100):
        counter, _ = counted()
        with counter:
            ProxyClassifier(0).features(torch.zeros(1, 3, size, size, dtype=torch.uint8))
        assert counter.get_total_flops() == proxy_flops(size)
