"""Models, tokenizers, tokens, samples and references of different runs: every reader of two refuses, in one line."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import vqlcmd
from tests.conftest import TINY, inside, merge, run_stages, write_params
from vqlcmd.cli import export
from vqlcmd.methods import load_method
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.safetensors_file import load_weights, save_weights

DATA = Path("data")
OTHER_TOKENIZER = merge(TINY, {"vqgan": {"seed": 1}})


@pytest.fixture(scope="module")
def other(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with another tokenizer, up to the tokens."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("other") / "run"))
    write_params(folder, OTHER_TOKENIZER)
    run_stages(folder, "vqgan", "tokenize")
    return folder


def take(source: Path, target: Path, *names: Path) -> None:
    for name in names:
        if (source / name).is_dir():
            shutil.rmtree(target / name)
            shutil.copytree(source / name, target / name)
        else:
            shutil.copy(source / name, target / name)


def refused(folder: Path, act: Callable[[], object], words: str) -> None:
    with inside(folder), pytest.raises(DataError) as caught:
        act()
    assert words in str(caught.value)
    assert str(caught.value).count("\n") == 0


def picture(path: Path) -> Path:
    Image.new("RGB", (16, 16), "white").save(path)
    return path


def test_every_reader_of_the_model_and_another_tokenizer_refuses(other: Path, copy: Path) -> None:
    """`vqgan.seed: 1` and `dvc repro tokenize`, then `vqlcmd gallery`: plausible wrong digits, exit 0."""
    take(other, copy, paths.VQGAN, paths.TOKENS)
    image = picture(copy / "a.png")
    for act in (
        lambda: vqlcmd.load("data"),
        lambda: export.draw_gallery(DATA, copy / "g.png", "0", 1, steps=2),
        lambda: export.sample_images(DATA, copy / "out", "1", 2, steps=2),
        lambda: export.inpaint_image(DATA, image, image, copy / "i.png", "1", 1, steps=2),
        lambda: export.decode_samples(DATA, DATA / "samples", copy / "out", 3, 8),
        *(lambda stage=stage: run_stages(copy, stage) for stage in ("sample", "evaluate", "figures")),
    ):
        refused(copy, act, "do not belong together, they come from different tokenizers: run `dvc repro`")
    assert not (copy / "g.png").exists()
    assert not (copy / "out").exists()


def test_the_bound_on_tokens_that_were_made_anew_is_refused(other: Path, copy: Path) -> None:
    """It gave another number, or took a label past the classes for the null class."""
    take(other, copy, paths.TOKENS)
    refused(copy, lambda: run_stages(copy, "bound"), "data/model/model.safetensors and data/tokens do not belong")


def test_tokens_of_the_same_tokenizer_and_another_share_held_out_are_others(copy: Path) -> None:
    write_params(copy, merge(TINY, {"tokenize": {"holdout": 0.2}}))
    run_stages(copy, "tokenize")
    for stage in ("bound", "evaluate", "figures"):
        refused(copy, lambda stage=stage: run_stages(copy, stage), "different tokens")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("manifest", "0" * 16, "different data sets"),
        ("images", {"size": 32, "resize": "box", "crop": "center"}, "images of different settings"),
        ("vqgan_digest", "0" * 64, "different tokenizers"),
    ],
)
def test_a_reference_of_another_data_set_or_size_is_refused(copy: Path, key: str, value: object, words: str) -> None:
    path = copy / paths.REFERENCE / "features.safetensors"
    tensors, about = load_weights(path, "reference")
    save_weights(path, "reference", tensors, {**about, "made_from": {**about["made_from"], key: value}})
    refused(copy, lambda: run_stages(copy, "evaluate"), words)


def test_a_model_that_does_not_name_its_tokens_is_refused_where_they_matter_and_loads_where_not(copy: Path) -> None:
    """Files of earlier versions: nobody can know, so the bound is not computed; to sample, the tokenizer is enough."""
    path = copy / paths.MODEL
    tensors, about = load_weights(path, "model")
    save_weights(path, "model", tensors, {key: value for key, value in about.items() if key != "tokens_digest"})
    refused(copy, lambda: run_stages(copy, "bound"), "does not say which tokens it was made from, it is of another")
    with inside(copy):
        assert vqlcmd.load("data").sample([1], steps=2).shape == (1, 3, 16, 16)


def test_pairs_of_other_samples_are_not_drawn(copy: Path) -> None:
    tensors, _ = load_weights(copy / paths.PAIRS, "pairs")
    save_weights(copy / paths.PAIRS, "pairs", tensors, {"samples_digest": "0" * 64})
    refused(copy, lambda: run_stages(copy, "figures"), "different samples")


def test_what_one_run_made_belongs_together(finished: Path) -> None:
    with inside(finished):
        _, about = load_method(paths.MODEL, torch.device("cpu"))
        belongs.check_belong(belongs.tokenizer(paths.VQGAN), belongs.model(paths.MODEL, about))
