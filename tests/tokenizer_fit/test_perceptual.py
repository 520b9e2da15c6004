"""Perceptual distances: zero for equal pictures, growing with damage, and with gradients."""

import types
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.factory import normal
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.tokenizer_fit import perceptual
from vqlcmd.tokenizer_fit.perceptual import LPIPS, NETWORKS, EfficientNetDistance, feature_distance
from vqlcmd.torchvision_guard import guard_torchvision


def test_the_distance_of_features_is_of_directions_alone():
    a, b = normal(2, 5, 3, 3), normal(2, 5, 3, 3, seed=1)
    torch.testing.assert_close(feature_distance(a, 7 * a), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(feature_distance(a, -a), 4 * torch.ones(2))
    cosine = F.cosine_similarity(a, b, dim=1).mean(dim=(1, 2))
    torch.testing.assert_close(feature_distance(a, b), 2 - 2 * cosine)


def test_no_network_is_none():
    assert NETWORKS["none"]() is None


@pytest.fixture(scope="module")
def network() -> nn.Module:
    pytest.importorskip("efficientnet_lite_pytorch")
    return EfficientNetDistance()


def test_efficientnets_distance_grows_with_blur_and_its_gradient_leads_back(network: nn.Module):
    x = F.interpolate(normal(2, 3, 8, 8), size=(64, 64), mode="nearest").clamp(-1, 1)
    blurs = [F.avg_pool2d(F.pad(x, [k // 2] * 4, mode="reflect"), k, stride=1) for k in (3, 7, 15)]
    distances = [network(x, blurred) for blurred in blurs]
    assert torch.equal(network(x, x), torch.zeros(2))
    assert (distances[0] > 0).all()
    assert (distances[0] < distances[1]).all()
    assert (distances[1] < distances[2]).all()
    y = blurs[1].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(network(y, x).sum(), y)
    assert (network(y - gradient / gradient.norm(), x) < distances[1]).all()
    assert not any(p.requires_grad for p in network.parameters())


def test_an_images_distance_does_not_depend_on_the_others_and_small_ones_are_enlarged(network: nn.Module):
    x, y = normal(3, 3, 16, 16), normal(3, 3, 16, 16, seed=1)
    torch.testing.assert_close(network(x, y)[:1], network(x[:1], y[:1]), rtol=1e-4, atol=1e-6)


def test_the_layers_compared_are_the_last_of_their_sides(network: nn.Module):
    features = network._features(torch.zeros(1, 3, 64, 64))  # type: ignore[operator]
    assert [feature.shape[-1] for feature in features] == [32, 16, 8, 4]


@pytest.mark.slow
def test_lpips_is_its_packages_with_torchvisions_weights(monkeypatch: pytest.MonkeyPatch):
    """Weights drawn by seed in the place of a download: the same layers get them."""
    guard_torchvision()
    lpips = pytest.importorskip("lpips")
    from torchvision.models import vgg16

    with torch.random.fork_rng(), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(0)
        drawn = vgg16()
        reference = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    kept = {"get_state_dict": lambda **_: drawn.state_dict()}
    weights = types.SimpleNamespace(IMAGENET1K_V1=types.SimpleNamespace(**kept))
    monkeypatch.setattr("torchvision.models.VGG16_Weights", weights)
    ours = LPIPS()
    for name, tensor in ours.network.net.state_dict().items():
        assert torch.equal(tensor, drawn.state_dict()["features." + name.partition(".")[2]]), name
    for name in ("lin0.model.1.weight", "lin4.model.1.weight"):
        assert torch.equal(ours.network.state_dict()[name], reference.state_dict()[name])
    x, y = normal(2, 3, 32, 32), normal(2, 3, 32, 32, seed=1)
    assert ours(x, y).shape == (2,)
    torch.testing.assert_close(ours(x, x), torch.zeros(2))


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch: pytest.MonkeyPatch):
    guard_torchvision()
    pytest.importorskip("lpips")

    def fails(**_: object) -> None:
        raise OSError("no network")

    weights = types.SimpleNamespace(IMAGENET1K_V1=types.SimpleNamespace(get_state_dict=fails))
    monkeypatch.setattr("torchvision.models.VGG16_Weights", weights)
    with pytest.raises(ConfigError, match="weights of VGG16 cannot be had"):
        LPIPS()


def test_a_package_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(perceptual.importlib, "import_module", missing)
    monkeypatch.setattr(perceptual, "guard_torchvision", lambda: None)
    with pytest.raises(ConfigError, match=r"pip install 'vqlcmd\[lpips\]'"):
        LPIPS()
