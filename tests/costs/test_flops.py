"""FLOPs: what is counted in small, without numbers, is what PyTorch counts when the whole thing runs."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.factory import METHODS, build, integers, params
from tests.repository.test_presets import preset
from vqlcmd.costs.flops import MethodCosts, polynomial
from vqlcmd.costs.plan import EFFICIENTNET, INCEPTION, VGG16, Data, Plan, plan
from vqlcmd.experiments.table import overridden
from vqlcmd.params import check_params
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.yaml_file import read_yaml

# A network whose every size is another number.
SHAPE = {"layers": 3, "heads": 2, "width": 24, "dropout": 0.1, "positions": "sinusoidal"}
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


def test_a_polynomial_is_found_again_from_as_many_values_as_it_has_coefficients() -> None:
    for at in (1, 2, 3, 10, 10**9):
        assert polynomial([7], at) == 7
        assert polynomial([5, 8], at) == 2 + 3 * at
        assert polynomial([6, 17, 34], at) == 3 * at**2 + 2 * at + 1


ABLATIONS: list[tuple[dict[str, Any], int]] = [
    *(({"method": name}, 3) for name in METHODS),
    ({"lambda_ce": 0.0}, 0),
    ({"lambda_ce": 0.0, "consistency_gradient": "network"}, 0),
    ({"lambda_rec": 0.0}, 3),
    ({"likelihood": True}, 3),
    ({"self_conditioning": 0.5, "weighting": "warped"}, 3),
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
    assert counter.get_total_flops() == BATCH * planned(classes, **changes).costs.training


@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize("name", METHODS)
def test_samples_and_bounds_cost_what_pytorch_counts(name: str, guidance: float) -> None:
    changes = {"method": name, "guidance": guidance}
    method, found = made(3, **changes).eval(), planned(3, **changes)
    label, rows = integers(3, BATCH), torch.arange(BATCH)
    counter, plain = counted()
    with counter, plain:
        method.sample(label, CounterRNG(0, "sample", rows), found.params.sampling())
    assert counter.get_total_flops() == BATCH * found.costs.sampling
    counter, plain = counted()
    with counter, plain:
        method.bound(integers(CODES, BATCH, TOKENS), label, CounterRNG(0, "bound", rows), found.params.bound.levels)
    assert counter.get_total_flops() == BATCH * found.costs.bound


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        # Two of the student with their backward passes, and the teacher's answers: at t to step along, and at s.
        ({"consistency_step": "model"}, 8),
        ({"consistency_step": "posterior"}, 7),
        ({"consistency_step": "posterior", "consistency_gradient": "network"}, 10),
        *(({"method": name}, 3) for name in METHODS if name != "lcmd"),
    ],
    ids=str,
)
def test_at_the_papers_size_vq_lcmd_trains_at_seven_or_eight_passes_and_the_others_at_three(
    changes: dict[str, str], passes: int
) -> None:
    found = plan(check_params(overridden(read_yaml(preset("ffhq")), changes), "ffhq"), Data(1, 0)).costs
    assert found.training / found.forward == pytest.approx(passes, rel=0.01)


def test_a_plan_of_any_depth_and_any_number_of_steps_is_a_few_small_runs() -> None:
    """In processor time: a run of 10,000 blocks or 100,000 steps would take minutes."""
    changes = {"network": {**SHAPE, "layers": 10_000}, "sample_steps": 100_000, "bound": {"levels": 50_000}}
    start = time.process_time()
    deep = planned(3, **changes).costs
    assert deep.forward < deep.training < deep.bound < deep.sampling
    assert time.process_time() - start < 30


def test_planning_leaves_the_global_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    found = planned(3)
    assert found.costs.parameters
    assert found.work()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_network_that_no_memory_could_hold_is_one_line() -> None:
    """Past what params.yaml may say; a model's file can still say it."""
    found = planned(network={**SHAPE, "width": 2048})
    wide = replace(found.costs.sizes, width=2 * 10**9)
    network = found.params.network.model_copy(update={"width": 2 * 10**9})
    costs = MethodCosts(found.params.model_copy(update={"network": network}), found.params.sampling(), 2, wide, 16)
    with pytest.raises(ConfigError, match=r"width 2,000,000,000 .* lower network.width"):
        assert costs.parameters


@pytest.mark.slow
def test_inception_costs_what_pytorch_counts_in_torchvisions_network_of_the_same_layers() -> None:
    from vqlcmd.torchvision_guard import guard_torchvision

    guard_torchvision()
    from torchvision.models import inception_v3

    counter, _ = counted()
    with FakeTensorMode(), counter:
        network = inception_v3(weights=None, num_classes=INCEPTION[1], aux_logits=False, init_weights=False).eval()
        network(torch.zeros(1, 3, 299, 299))
    assert counter.get_total_flops() == INCEPTION[2]


@pytest.mark.slow
def test_vgg16_costs_what_pytorch_counts_in_torchvisions_network_without_its_last_layer() -> None:
    from vqlcmd.torchvision_guard import guard_torchvision

    guard_torchvision()
    from torchvision.models import vgg16

    counter, _ = counted()
    with FakeTensorMode(), counter:
        network = vgg16(weights=None, init_weights=False).eval()
        network.classifier[6] = torch.nn.Identity()
        assert network(torch.zeros(1, 3, 224, 224)).shape[1] == VGG16[0]
    assert counter.get_total_flops() == VGG16[2]


def test_efficientnet_costs_what_pytorch_counts_in_its_package() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    counter, _ = counted()
    with FakeTensorMode(), counter:
        network = package.EfficientNet.from_name("efficientnet-lite0").eval()
        features = network.extract_features(torch.zeros(1, 3, 224, 224)).mean(dim=(2, 3))
        assert (features.shape[1], network._fc(features).shape[1]) == EFFICIENTNET[:2]
    assert counter.get_total_flops() == EFFICIENTNET[2]
