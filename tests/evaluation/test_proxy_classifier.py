"""The proxy classifier of demo-sized images, and the extractors it shares a face with."""

import hashlib
import importlib
import os
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor

from vqlcmd.evaluation.extractors import extractor
from vqlcmd.evaluation.fidelity import register_proxy
from vqlcmd.evaluation.proxy_classifier import DIMENSIONS, ProxyClassifier, accuracy, fit_proxy, load_proxy, save_proxy
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.torchvision_guard import guard_torchvision

SETTINGS = {"steps": 30, "batch_size": 32, "learning_rate": 5e-3, "seed": 0}


def bars(n: int, side: int = 16, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Noisy images of a bright bar: at the left (class 0), at the right (1), or at the top (2)."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (n,), generator=draws)
    images = torch.randint(0, 60, (n, 3, side, side), generator=draws)
    third = side // 3
    images[labels == 0, :, :, :third] += 150
    images[labels == 1, :, :, -third:] += 150
    images[labels == 2, :, :third, :] += 150
    return images.to(torch.uint8), labels


def same_weights(one: ProxyClassifier, two: ProxyClassifier) -> bool:
    other = two.state_dict()
    return all(torch.equal(weight, other[name]) for name, weight in one.state_dict().items())


@pytest.fixture(scope="module")
def proxy() -> ProxyClassifier:
    return fit_proxy(*bars(120), 3, **SETTINGS)


def test_a_proxy_tells_the_classes_of_images_it_has_not_seen(proxy: ProxyClassifier) -> None:
    assert accuracy(proxy, *bars(60, seed=2)) > 0.95


def test_the_same_seed_gives_the_same_proxy_and_leaves_the_global_random_state_alone(proxy: ProxyClassifier) -> None:
    before = torch.random.get_rng_state()
    torch.rand(7)
    torch.random.set_rng_state(before)
    again = fit_proxy(*bars(120), 3, **SETTINGS)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(7)
    other = fit_proxy(*bars(120), 3, **{**SETTINGS, "seed": 1})
    assert same_weights(proxy, again)
    assert not same_weights(proxy, other)


def test_a_proxy_fitted_with_other_instructions_of_the_processor_has_the_same_weights(
    proxy: ProxyClassifier, tmp_path: Path
) -> None:
    """The narrowest instructions add in another order; a weight half-way between two may go the other way."""
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from tests.evaluation import test_proxy_classifier as own\n"
        "own.save_proxy(own.fit_proxy(*own.bars(120), 3, **own.SETTINGS), Path(sys.argv[2]))"
    )
    narrow = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
    path = tmp_path / "narrow.safetensors"
    command = [sys.executable, "-c", script, str(Path.cwd()), str(path)]
    subprocess.run(command, env={**os.environ, **narrow}, check=True, timeout=120)
    other = load_proxy(path).state_dict()
    unequal = sum(int((weight != other[name]).sum()) for name, weight in proxy.state_dict().items())
    assert unequal <= 2, unequal


def test_weights_leave_room_for_what_processors_differ_by(proxy: ProxyClassifier) -> None:
    """Float32 has 24 bits: rounded to 12, two weights are equal unless a boundary lies between them."""
    for name, weight in proxy.state_dict().items():
        if weight.is_floating_point():
            steps = torch.frexp(weight).mantissa * 2**12
            assert torch.equal(steps, steps.round()), name


@pytest.mark.parametrize("side", [8, 13, 32, 96])
def test_a_proxy_takes_any_side_from_eight_pixels(proxy: ProxyClassifier, side: int) -> None:
    features, logits = proxy(bars(2, side)[0])
    assert features.shape == (2, DIMENSIONS)
    assert logits.shape == (2, 3)


def test_an_image_has_the_same_features_alone_and_in_a_batch(proxy: ProxyClassifier) -> None:
    images = bars(9)[0]
    torch.testing.assert_close(proxy.features(images)[:1], proxy.features(images[:1]))


def test_without_classes_a_proxy_learns_which_way_up_an_image_is(tmp_path: Path) -> None:
    images = bars(120)[0][bars(120)[1] == 2]
    proxy = fit_proxy(images, None, 0, **SETTINGS)
    assert not proxy.labelled
    assert accuracy(proxy, images, None) > 0.95
    save_proxy(proxy, tmp_path / "proxy.safetensors")
    found = extractor("proxy", tmp_path / "proxy.safetensors")(images)
    assert found.logits is None
    assert found.features is not None


def test_each_step_is_reported_with_its_loss() -> None:
    seen: list[tuple[int, float]] = []
    fit_proxy(*bars(40), 3, **{**SETTINGS, "steps": 3}, on_step=lambda step, loss: seen.append((step, loss)))
    assert [step for step, _ in seen] == [0, 1, 2]
    assert all(loss > 0 for _, loss in seen)


def test_a_saved_proxy_comes_back_whole_and_as_the_same_bytes(proxy: ProxyClassifier, tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    save_proxy(proxy, one)
    loaded = load_proxy(one)
    save_proxy(loaded, two)
    assert same_weights(proxy, loaded)
    assert one.read_bytes() == two.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.safetensors", "two.safetensors"]


def test_a_missing_or_damaged_proxy_is_one_line(proxy: ProxyClassifier, tmp_path: Path) -> None:
    path = tmp_path / "proxy.safetensors"
    with pytest.raises(DataError, match="is missing"):
        load_proxy(path)
    save_proxy(proxy, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="is damaged") as failure:
        load_proxy(path)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (torch.zeros(4, 3, 6, 6, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), "S >= 8"),
        (torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64), "uint8"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2, 3]), "labels in 0..2, got 0..3"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.uint8), None, "one label for each"),
    ],
)
def test_what_a_proxy_cannot_learn_from_is_refused(images: Tensor, labels: Tensor | None, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        fit_proxy(images, labels, 3, **SETTINGS)


@pytest.mark.parametrize("layers", [["features", "logits"], ["logits", "features"], ["features"]])
def test_torch_fidelity_gets_the_layers_in_the_order_it_asked_for(
    proxy: ProxyClassifier, tmp_path: Path, layers: list[str]
) -> None:
    """A fixed order would swap features and logits for some values of PYTHONHASHSEED."""
    name = register_proxy()
    from torch_fidelity.utils import create_feature_extractor

    save_proxy(proxy, tmp_path / "proxy.safetensors")
    options = {"feature_extractor_weights_path": str(tmp_path / "proxy.safetensors"), "verbose": False}
    network = create_feature_extractor(name, layers, cuda=False, **options)
    images = bars(5)[0]
    found = network.convert_features_tuple_to_dict(network(images))
    features, logits = proxy(images)
    assert list(found) == layers
    assert torch.equal(found["features"], features)
    assert "logits" not in found or torch.equal(found["logits"], logits)


def test_an_extractor_gives_features_logits_and_the_digest_of_its_weights(
    proxy: ProxyClassifier, tmp_path: Path
) -> None:
    path = tmp_path / "proxy.safetensors"
    save_proxy(proxy, path)
    extract = extractor("proxy", path)
    images = bars(7)[0]
    found = extract.collect(images.split(3))
    expected = proxy(images)
    assert extract.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    for layer, value in zip(found, expected, strict=True):
        torch.testing.assert_close(layer, value)


def test_registering_the_proxy_again_changes_nothing() -> None:
    assert register_proxy() == register_proxy()


def test_unknown_extractors_and_missing_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'vgg' is not one of proxy, inception, efficientnet, dinov2, clip, vgg16"):
        extractor("vgg")
    with pytest.raises(DataError, match="reference stage"):
        extractor("proxy")
    with pytest.raises(DataError, match="no such file"):
        extractor("inception", tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_text("Not Found")
    with pytest.raises(DataError, match="not a file of weights"):
        extractor("inception", tmp_path / "weights.pth")


def test_without_a_network_the_error_says_which_file_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def unreachable(*_args: object, **_options: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DataError, match="Name or service not known") as failure:
        extractor("inception")
    message = str(failure.value)
    assert str(tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth") in message
    assert "\n" not in message


def test_the_guard_leaves_a_working_torchvision_alone() -> None:
    guard_torchvision()
    loaded = sys.modules["torchvision"]
    guard_torchvision()
    assert sys.modules["torchvision"] is loaded


def test_an_import_error_that_is_not_about_operators_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise RuntimeError(f"{name}: something else")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(RuntimeError, match="torchvision: something else"):
        guard_torchvision()
