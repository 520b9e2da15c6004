"""The paper's evaluation: which images count where, and torch-fidelity's numbers on the same pictures."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor

from stages import evaluate, reference
from tests.conftest import TINY, inside, merge, run_stages, write_params
from vqlcmd.evaluation import distances
from vqlcmd.evaluation.extractors import Layers, extractor
from vqlcmd.evaluation.frechet import frechet_distance
from vqlcmd.evaluation.metrics.precision_recall import precision_recall
from vqlcmd.evaluation.moments import Moments, Statistics
from vqlcmd.images import loader, manifest
from vqlcmd.images.crops import Recipe
from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.safetensors_file import load_weights
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokenizer.pixels import to_uint8
from vqlcmd.tokens import shards
from vqlcmd.torchvision_guard import guard_torchvision

PAPER: dict[str, Any] = {"features": "inception", "precision_features": "vgg16", "neighbours": 2, "batch_size": 5}


@dataclass(frozen=True)
class Colours:
    """An extractor whose features are some pixels."""

    name: str
    digest: str
    step: int
    has_logits: bool

    def __call__(self, shown: Tensor) -> Layers:
        features = shown.flatten(1)[:, :: self.step].float()
        return Layers(features, features[:, :5] if self.has_logits else None)


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Colours("inception", "a", 97, has_logits=True), Colours("vgg16", "b", 41, has_logits=False)
    for stage in (reference, evaluate):
        monkeypatch.setattr(stage, "extractors", lambda *_: pair)


def real_images(folder: Path, limit: int | None) -> Tensor:
    source = loader.open_images(manifest.read(folder / "data/manifests/digits.json"), None)
    return loader.load_all(source, Recipe(16, "bilinear"), limit=limit, purpose="reference").images


def generated_images(folder: Path) -> Tensor:
    tokenizer = vqgan.load(folder / "data/vqgan.safetensors")
    tokens = shards.read_split(folder / "data/samples", "samples").tokens
    return torch.cat([to_uint8(tokenizer.decode(part.long())) for part in tokens.split(5)])


def measured(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics/evaluate.json").read_text(encoding="utf-8"))


def protocol(folder: Path) -> dict[str, Any]:
    """That of the samples."""
    of_samples, of_reconstructions = json.loads((folder / "metrics/protocol.json").read_text(encoding="utf-8"))
    assert (of_samples["of"], of_reconstructions["of"]) == ("samples", "reconstructions")
    return of_samples


def statistics(features: Tensor) -> Statistics:
    moments = Moments()
    moments.add(features)
    found = moments.statistics()
    assert found is not None
    return found


@pytest.mark.usefixtures("colours")
def test_fid_counts_all_images_and_precision_and_recall_as_many_of_each_as_asked_for(copy: Path) -> None:
    changes = {"reference": {"limit": 60, "batch_size": 7}, "evaluate": {**PAPER, "precision_images": 30}}
    write_params(copy, merge(TINY, changes))
    run_stages(copy, "reference", "evaluate")
    found = measured(copy)
    real, generated = real_images(copy, limit=60), generated_images(copy)
    network, precise = Colours("", "", 97, has_logits=False), Colours("", "", 41, has_logits=False)
    ours, theirs = (statistics(network(shown).features) for shown in (generated, real))
    assert found["fid_inception"] == pytest.approx(frechet_distance(ours, theirs), rel=1e-4)
    kept = real[loader.subsample(60, 30, 0, "precision")]
    one, two = (precise(shown).features for shown in (generated[:30], kept))
    shares = precision_recall(one, two, k=2)
    assert (found["precision_vgg16"], found["recall_vgg16"]) == pytest.approx(shares, rel=1e-5)
    assert "precision_inception" not in found
    made = protocol(copy)
    assert (made["generated_images"], made["real_images"]) == (50, 60)
    assert (made["precision_generated_images"], made["precision_real_images"]) == (30, 30)
    assert (made["extractor"], made["precision_extractor"], made["neighbours"]) == ("inception", "vgg16", 2)
    assert (made["weights_sha256"], made["precision_weights_sha256"]) == ("a", "b")
    assert made["torch"].startswith(torch.__version__.partition("+")[0])
    assert (found["generated_images"], found["real_images"]) == (50, 60)
    assert set(found["reconstruction"]) >= {"fid_inception", "is_inception", "precision_vgg16", "recall_vgg16"}


@pytest.mark.usefixtures("colours")
def test_published_statistics_take_the_place_of_the_real_images(copy: Path) -> None:
    exact = Colours("", "", 97, has_logits=False)(real_images(copy, limit=None)).features.double().numpy()
    path = copy / "published.npz"
    np.savez(path, mu=exact.mean(axis=0), sigma=np.cov(exact, rowvar=False))
    write_params(copy, merge(TINY, {"evaluate": PAPER}))
    run_stages(copy, "reference", "evaluate")
    own, before = measured(copy), protocol(copy)
    changes = {"reference": {"statistics": str(path), "limit": 40}, "evaluate": PAPER}
    write_params(copy, merge(TINY, changes))
    run_stages(copy, "reference", "evaluate")
    found = measured(copy)
    assert found["fid_inception"] == pytest.approx(own["fid_inception"], rel=1e-5)
    assert protocol(copy)["real_images"] is None
    assert protocol(copy)["statistics"] == {"file": "published.npz", "sha256": sha256(path)}
    assert before["statistics"] is None


@pytest.mark.usefixtures("colours")
def test_statistics_of_another_size_are_refused_before_the_work(copy: Path) -> None:
    np.savez(copy / "published.npz", mu=np.zeros(5), sigma=np.eye(5))
    write_params(copy, merge(TINY, {"reference": {"statistics": str(copy / "published.npz")}, "evaluate": PAPER}))
    with pytest.raises(DataError, match="mu has 5 numbers, but inception gives 8"):
        run_stages(copy, "reference")


@pytest.mark.parametrize("name", ["weights-inception-2015-12-05-6726825d.pth", "vgg16-397923af.pth"])
def test_weights_that_are_a_program_are_not_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch-fidelity unpickled whatever lay in $TORCH_HOME."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / name
    place.parent.mkdir(parents=True)
    torch.save(Program(tmp_path / "was-run"), place)
    with pytest.raises(DataError, match="nothing but tensors"):
        extractor("vgg16" if "vgg16" in name else "inception")
    assert not (tmp_path / "was-run").exists()


class Program:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_statistics_of_inception_are_refused_for_a_proxy(copy: Path) -> None:
    write_params(copy, merge(TINY, {"reference": {"statistics": "published.npz"}}))
    with pytest.raises(ConfigError, match=r"set evaluate\.features to inception"):
        run_stages(copy, "reference")


def test_a_reference_of_another_extractor_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Colours("proxy", "other", 97, has_logits=True)
    monkeypatch.setattr(evaluate, "extractors", lambda *_: (other, other))
    with pytest.raises(DataError, match="made with other weights than those of proxy: run `dvc repro`"):
        run_stages(copy, "evaluate")


@pytest.mark.parametrize("chunk", [7, 2000])
@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_are_torch_fidelitys(k: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    guard_torchvision()
    from torch_fidelity.metric_prc import prc_features_to_metric

    monkeypatch.setattr(distances, "CHUNK", chunk)
    draws = torch.Generator().manual_seed(k)
    one = torch.randn(150, 6, generator=draws)
    two = 1.3 * torch.randn(110, 6, generator=draws) + 0.8
    expected = prc_features_to_metric(one, two, prc_neighborhood=k, verbose=False)
    assert 0.1 < expected["precision"] < 0.95
    assert precision_recall(one, two, k) == pytest.approx((expected["precision"], expected["recall"]), abs=1e-4)


class Pictures(torch.utils.data.Dataset[Tensor]):
    """What torch-fidelity takes."""

    def __init__(self, pixels: Tensor):
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        return self.pixels[index]


def put_random_weights(home: Path) -> dict[str, Path]:
    """Into a $TORCH_HOME, where a user without a network puts the published ones."""
    guard_torchvision()
    import torchvision
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    folder = home / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    kind = inception.FeatureExtractorInceptionV3
    with (
        mock.patch.object(kind, "load_state_dict"),
        mock.patch.object(inception, "load_state_dict_from_url", return_value={}),
    ):
        first = kind("inception-v3-compat", ["2048"])
    second = torchvision.models.vgg16(weights=None)
    networks = {"weights-inception-2015-12-05-6726825d.pth": first, "vgg16-397923af.pth": second}
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / name)
    return {name.partition("-")[0]: folder / name for name in networks}


@pytest.mark.slow
def test_with_inception_and_vgg16_the_numbers_are_those_of_torch_fidelity(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = put_random_weights(tmp_path / "torch")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.set_num_threads(os.cpu_count() or 1)
    changes = {
        "sample": {"count": 20, "batch_size": 20},
        "reference": {"limit": 16, "batch_size": 16},
        "evaluate": {**PAPER, "precision_images": 12, "batch_size": 20},
    }
    write_params(copy, merge(TINY, changes))
    run_stages(copy, "sample", "reference", "evaluate")
    found = measured(copy)
    real, generated = real_images(copy, limit=16), generated_images(copy)
    import torch_fidelity

    how = {"cuda": False, "batch_size": 16, "save_cpu_ram": True, "cache": False, "verbose": False}
    both = {"input1": Pictures(generated), "input2": Pictures(real)}
    expected = torch_fidelity.calculate_metrics(**both, fid=True, isc=True, **how)
    assert found["fid_inception"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert found["is_inception"] == pytest.approx(expected["inception_score_mean"], rel=1e-4)
    kept = real[loader.subsample(16, 12, 0, "precision")]
    both = {"input1": Pictures(generated[:12]), "input2": Pictures(kept)}
    expected = torch_fidelity.calculate_metrics(**both, prc=True, prc_neighborhood=2, **how)
    assert found["precision_vgg16"] == pytest.approx(expected["precision"], abs=1e-4)
    assert found["recall_vgg16"] == pytest.approx(expected["recall"], abs=1e-4)
    assert protocol(copy)["weights_sha256"] == sha256(files["weights"])
    assert protocol(copy)["precision_weights_sha256"] == sha256(files["vgg16"])
    with inside(copy):
        tensors, about = load_weights(paths.REFERENCE / "features.safetensors", "reference")
    assert tensors["real_mean"].shape == (2048,)
    assert tensors["real_features"].shape == (12, 4096)
    assert about["images"] == {"real": 16, "reconstructed": 16}
