"""The stage from images to tokens: any source, any recipe, and what of an image goes where."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stages import reference
from stages import vqgan as vqgan_stage
from tests.conftest import run_stages, write_params
from tests.kinds import MAKERS, PICTURES
from tests.tokenizers import SMALL, seeded
from vqlcmd.evaluation.extractors import Layers
from vqlcmd.images import loader, manifest
from vqlcmd.images.crops import Recipe
from vqlcmd.runtime import progress
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.safetensors_file import load_weights
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokenizer.pixels import to_float
from vqlcmd.tokens import shards

SPLITS = ("train", "heldout")


def tokenize(folder: Path, kind: str, pictures: dict[str, bytes] = PICTURES, /, **changes: Any) -> None:
    """Scan the pictures as a source of this kind, and run the stage."""
    root = folder.parent / "pictures"
    shutil.rmtree(root, ignore_errors=True)
    path = MAKERS[kind](root, pictures)
    made = manifest.scan("set", path)
    manifest.write(made, folder / "data" / "manifests" / "set.json")
    settings = {"holdout": 0.4, "shard_images": 9, **changes.pop("tokenize", {})}
    write_params(folder, {"dataset": "set", "images": changes, "tokenize": settings})
    run_stages(folder, "tokenize")


def header(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "data" / "tokens" / "header.json").read_text(encoding="utf-8"))


def splits(folder: Path) -> dict[str, shards.Split]:
    return {name: shards.read_split(folder / "data" / "tokens", name) for name in SPLITS}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted((folder / "data" / "tokens").glob("*.tar"))}


@pytest.mark.parametrize("kind", ["tar", "zip", "lmdb"])
def test_every_source_makes_the_same_tokens_with_any_number_of_workers(
    ready: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize(ready, "folder")
    expected = digests(ready)
    labels = splits(ready)["train"].labels
    monkeypatch.setenv("VQLCMD_WORKERS", "2")
    tokenize(ready, kind)
    if kind == "lmdb":
        assert splits(ready)["train"].labels.tolist() == [0] * len(labels)
        assert header(ready)["classes"] == []
    else:
        assert digests(ready) == expected
        assert header(ready)["classes"] == ["ant", "bee", "cat"]
    assert header(ready)["manifest"]["digest"] == manifest.digest(manifest.read(ready / "data/manifests/set.json"))


@pytest.mark.parametrize("crop", ["center", "random", "adm", "ten_crop"])
def test_every_square_of_every_image_is_one_record_with_its_label_and_position(ready: Path, crop: str) -> None:
    tokenize(ready, "zip", crop=crop)
    found = splits(ready)
    model = vqgan.load(ready / "data" / "vqgan.safetensors")
    source = loader.open_images(manifest.read(ready / "data/manifests/set.json"), ready.parent / "pictures")
    recipe = Recipe(16, "bilinear", crop)  # pyright: ignore[reportArgumentType]
    crop_views = loader.load_all(source, recipe)
    expected = model.encode(to_float(crop_views.images))
    for name in SPLITS:
        rows = torch.isin(crop_views.index, found[name].index)
        assert torch.equal(found[name].index, crop_views.index[rows])
        assert torch.equal(found[name].labels, crop_views.labels[rows])
        assert (found[name].tokens.long() == expected[rows]).float().mean() > 0.999
    assert header(ready)["images"]["crop"] == crop
    assert header(ready).get("records_per_image") == (10 if crop == "ten_crop" else None)


def test_all_squares_of_an_image_are_on_one_side_of_the_split(ready: Path) -> None:
    tokenize(ready, "tar", crop="ten_crop")
    sides = {name: Counter(split.index.tolist()) for name, split in splits(ready).items()}
    assert set(sides["train"]) | set(sides["heldout"]) == set(range(12))
    assert not set(sides["train"]) & set(sides["heldout"])
    assert {*sides["train"].values(), *sides["heldout"].values()} == {10}
    assert min(map(len, sides.values())) > 1
    one_each = {name: set(side) for name, side in sides.items()}
    tokenize(ready, "tar", crop="center")
    assert {name: set(split.index.tolist()) for name, split in splits(ready).items()} == one_each


def test_a_mirror_image_follows_its_image_whatever_the_batch(ready: Path) -> None:
    tokenize(ready, "folder", flip=True)
    expected = digests(ready)
    train = splits(ready)["train"]
    assert (train.index[::2] == train.index[1::2]).all()
    assert header(ready)["records_per_image"] == 2
    tokenize(ready, "folder", flip=True, tokenize={"batch_size": 5})
    assert digests(ready) == expected
    tokenize(ready, "folder")
    assert torch.equal(splits(ready)["train"].tokens, train.tokens[::2])
    assert "records_per_image" not in header(ready)


def test_a_batch_may_end_within_the_squares_of_an_image(ready: Path) -> None:
    tokenize(ready, "zip", crop="ten_crop")
    expected = digests(ready)
    assert len(expected) > 10, "shards of nine records"
    tokenize(ready, "zip", crop="ten_crop", tokenize={"batch_size": 7})
    assert digests(ready) == expected


@pytest.mark.parametrize("kind", MAKERS)
def test_the_rate_is_in_images_a_second_though_an_image_has_ten_squares(
    ready: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(np.arange(0, 1000, 0.25))
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(now)))
    tokenize(ready, kind, crop="ten_crop", tokenize={"batch_size": 20})
    lines = [line for line in capsys.readouterr().out.splitlines() if "images/s" in line]
    assert [line.split(" ·")[0] for line in lines] == [f"tokenize {done}/12" for done in (2, 4, 6, 8, 10, 12)]
    # A quarter of a second for each look at the clock, of which a line takes one, and two images in each batch.
    assert lines[0].split(" · ")[1] == "8 images/s"


def test_a_tokenizer_is_fitted_to_one_square_of_each_image(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize(ready, "tar", crop="ten_crop")
    seen: list[Tensor] = []

    def fit(_: object, pictures: Any, *__: object, **___: object) -> tuple[vqgan.VQGAN, list[dict[str, float]]]:
        seen.append(pictures.read(torch.arange(len(pictures))))
        return seeded(SMALL), [{"step": 1}]

    monkeypatch.setattr(vqgan_stage, "fit", fit)
    run_stages(ready, "vqgan")
    source = loader.open_images(manifest.read(ready / "data/manifests/set.json"), ready.parent / "pictures")
    assert torch.equal(seen[0], loader.load_all(source, Recipe(16, "bilinear", "adm")).images)


def test_the_reference_counts_images_and_not_squares(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees the square that ADM cuts, in the place of ten."""
    seen: list[tuple[int, ...]] = []

    def fit(pictures: Tensor, labels: Tensor, classes: int, **_: object) -> None:
        seen.append((len(pictures), len(labels), classes))

    class Pixels:
        name, digest = "proxy", "none"

        def __call__(self, shown: Tensor) -> Layers:
            return Layers(shown.flatten(1).float(), None)

    monkeypatch.setattr(reference.proxy_classifier, "fit_proxy", fit)
    monkeypatch.setattr(reference.proxy_classifier, "save_proxy", lambda *_: None)
    monkeypatch.setattr(reference.proxy_classifier, "accuracy", lambda *_: 1.0)
    monkeypatch.setattr(reference, "extractors", lambda *_: (Pixels(),) * 2)
    tokenize(ready, "zip", crop="ten_crop")
    run_stages(ready, "reference")
    tensors, about = load_weights(ready / "data" / "reference" / "features.safetensors", "reference")
    source = loader.open_images(manifest.read(ready / "data/manifests/set.json"), ready.parent / "pictures")
    expected = loader.load_all(source, Recipe(16, "bilinear", "adm")).images
    assert torch.equal(tensors["real_features"], expected.flatten(1).float())
    assert len(tensors["reconstructed_features"]) == 12
    assert seen == [(len(set(splits(ready)["train"].index.tolist())),) * 2 + (3,)]
    assert about["classes"] == ["ant", "bee", "cat"]
