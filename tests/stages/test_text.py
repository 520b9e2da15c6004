"""The stages of text, from files to numbers."""

import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import inside, run_stages
from tests.factory import METHODS, VARIANTS, changes_of
from tests.texts import LENGTH, WORDS, prepare, write_params
from vqlcmd import methods
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.text import blocks, corpus, vocabulary
from vqlcmd.tokens import shards

STAGES = ("text.vocabulary", "text.tokenize", "train", "sample", "bound", "text.reference", "text.evaluate")


def run(folder: Path, *stages: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQLCMD_TEXT", str(folder / "texts"))
        run_stages(folder, *stages)


def metrics(folder: Path, name: str = "evaluate") -> Any:
    return json.loads((folder / "metrics" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage of text has run, with the exact likelihood of an autoregressive model."""
    folder = prepare(tmp_path_factory.mktemp("text"), {"method": "autoregressive"})
    run(folder, *STAGES)
    return folder


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def test_blocks_are_pieces_of_the_files_that_they_name(written: Path) -> None:
    symbols = vocabulary.load(written / "data" / "vocabulary.json")
    listed = corpus.read(written / "data" / "manifests" / "tiny.json")
    texts = ["".join(corpus.passages(text, symbols.reduction)) for text in corpus.texts(listed, written / "texts")]
    for name in ("train", "heldout"):
        split = shards.read_split(written / "data" / "tokens", name)
        assert split.tokens.shape[1] == LENGTH
        for row, index in zip(split.tokens.numpy()[:50], split.index[:50].tolist(), strict=True):
            file, place = blocks.file_and_token(index)
            text = symbols.decode(row)
            # A block goes on in another passage where its own one ends, behind a blank.
            common = len(_common_prefix(text, texts[file][place : place + LENGTH]))
            assert common == LENGTH or " " in text[:common]


def _common_prefix(one: str, other: str) -> str:
    return one[
        : next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    ]


def test_no_heldout_block_stands_in_the_training_text(written: Path) -> None:
    train, heldout = (
        shards.read_split(written / "data" / "tokens", name).tokens.numpy() for name in ("train", "heldout")
    )
    assert len(heldout)
    text = train.astype(np.uint8).tobytes()
    assert not any(block.astype(np.uint8).tobytes() in text for block in heldout)


def test_bits_per_character_are_those_of_the_likelihood(written: Path) -> None:
    """A token is a character here, and a bit is ln 2 nats."""
    found, bound = metrics(written), metrics(written, "bound")
    assert found["bits_per_character"] == pytest.approx(bound["nats_per_token"] / math.log(2), rel=1e-5)
    assert 1 < found["bits_per_character"] < math.log2(27)


def test_samples_are_measured_beside_heldout_text(written: Path) -> None:
    found = metrics(written)
    assert found["heldout"].keys() < found.keys()
    # Its words are those of the training text, and its runs are shorter than a block, since none of it is there.
    assert found["heldout"]["words_known"] == 1
    assert found["heldout"]["copied_run_longest"] < LENGTH
    assert found["perplexity_proxy"] > 1
    assert found["heldout"]["perplexity_proxy"] < 27
    assert {"zlib", "bz2", "xz", "xz_after_training_text"} == set(found["compressed_bits_per_character"])
    assert found["compressed_bits_per_character"]["xz_after_training_text"] < 3
    samples = metrics(written, "samples")
    assert len(samples) == 3
    assert all(len(text) == LENGTH and set(text) <= set(" " + "".join(WORDS)) for text in samples)


def test_a_model_does_not_measure_its_own_samples(copy: Path) -> None:
    """With the method and the seed of the model that measures it may be that model, and its perplexity the lowest."""
    for method, measured in (("autoregressive", False), ("mdlm", True)):
        write_params(copy, {"method": method, "reference": {"seed": 0}})
        run(copy, *(STAGES[2:4] if measured else ()), "text.reference", "text.evaluate")
        found = metrics(copy)
        assert (found["perplexity_proxy"] is not None) == measured
        assert ("choose another seed" in found.get("perplexity_proxy_null", "")) != measured
        assert found["heldout"]["perplexity_proxy"] > 1


def test_copied_runs_stand_where_it_says(written: Path) -> None:
    for copied in metrics(written, "copied"):
        text = " ".join((written / "texts" / "tiny" / copied["file"]).read_text(encoding="utf-8").split())
        reduced = corpus.letters(text)
        near = reduced[max(copied["near_token"] - 40, 0) : copied["near_token"] + 2 * LENGTH + 40]
        # Unless it goes on in another passage, which another file may hold.
        assert copied["text"] in near or " " in copied["text"]
    assert metrics(written, "copied")[0]["text"] in "".join(_training_text(written))


def _training_text(folder: Path) -> str:
    symbols = vocabulary.load(folder / "data" / "vocabulary.json")
    return symbols.decode(shards.read_split(folder / "data" / "tokens", "train").tokens.numpy().ravel())


def test_samples_that_are_training_text_are_found_out(copy: Path) -> None:
    """Copied whole; every word known."""
    with inside(copy):
        header = shards.read_header(Path("data/samples"))
        split = shards.read_split(Path("data/tokens"), "train")
        about = {key: value for key, value in header.items() if key not in ("format", "splits", "files")}
        rows = slice(5, 45)
        taken = shards.Split(split.tokens[rows], split.labels[rows], split.index[rows])
        shards.write_shards(Path("data/samples"), {"samples": taken}, about, 100)
    run(copy, "text.evaluate")
    found = metrics(copy)
    assert found["copied_run_mean"] == found["copied_run_longest"] == LENGTH
    assert found["words_known"] == 1


def test_the_language_model_is_the_same_whatever_is_trained_beside_it(copy: Path) -> None:
    """A table's rows are measured by one model."""
    before = (copy / "data" / "reference" / "language_model.safetensors").read_bytes()
    (said,) = metrics(copy, "protocol")
    assert said["language_model"]["sha256"] == hashlib.sha256(before).hexdigest()
    changes = {"method": "maskgit", "seed": 5, "embedding_dim": 4, "train": {"learning_rate": 1.0, "betas": [0.1, 0.2]}}
    write_params(copy, changes)
    run(copy, "text.reference")
    assert (copy / "data" / "reference" / "language_model.safetensors").read_bytes() == before
    write_params(copy, {"reference": {"seed": 2}})
    run(copy, "text.reference")
    assert (copy / "data" / "reference" / "language_model.safetensors").read_bytes() != before


def test_nothing_held_out_runs_through_and_says_why_numbers_are_missing(copy: Path) -> None:
    write_params(copy, {"method": "autoregressive", "tokenize": {"holdout": 0}})
    run(copy, *STAGES[1:])
    found = metrics(copy)
    assert found["bits_per_character"] is None
    assert "nothing is held out" in found["bits_per_character_null"]
    assert found["heldout"]["words_known"] is None
    assert found["words_known"] is not None


def test_what_belongs_to_another_text_is_refused(copy: Path) -> None:
    (copy / "texts" / "tiny" / "f3.txt").write_text("zebra\n\n" * 50, encoding="utf-8")
    found, _ = corpus.scan("tiny", copy / "texts" / "tiny")
    corpus.write(found, copy / "data" / "manifests" / "tiny.json")
    with pytest.raises(ConfigError, match="the character 'z' is not in the vocabulary"):
        run(copy, "text.tokenize")
    run(copy, "text.vocabulary", "text.tokenize")
    for stage in ("bound", "sample", "text.evaluate"):
        with pytest.raises(DataError, match="do not belong together"):
            run(copy, stage)


def test_a_block_longer_than_the_text_is_one_line(copy: Path) -> None:
    write_params(copy, {"tokenize": {"block": 100_000}})
    with pytest.raises(
        DataError, match=r"the text makes no block of 100000 tokens for training: lower tokenize\.block"
    ):
        run(copy, "text.tokenize")


@pytest.mark.parametrize("stage", ["vqgan", "tokenize", "reference", "evaluate"])
def test_stages_of_images_and_of_text_say_whose_they_are(written: Path, stage: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`domain` is text, and this is for images alone: set it to images"):
        run(written, stage)
    shutil.copy(Path(__file__).parents[2] / "presets" / "digits.yaml", tmp_path / "params.yaml")
    with pytest.raises(ConfigError, match="`domain` is images, and this is for text alone: set it to text"):
        run(tmp_path, f"text.{stage}" if stage != "vqgan" else "text.vocabulary")


@pytest.mark.parametrize("name", [*METHODS, *VARIANTS])
def test_every_method_and_sampler_runs_on_text(name: str, copy: Path) -> None:
    changes = {"train_steps": 10, **changes_of(name)}
    run_by = methods.method_class(changes["method"]).samplers
    for sampler in run_by:
        write_params(copy, {**changes, "sampler": sampler})
        run(copy, *(["train"] if sampler == run_by[0] else []), "sample")
        drawn = shards.read_split(copy / "data" / "samples", "samples").tokens
        assert drawn.shape == (40, LENGTH)
        assert len(drawn.unique(dim=0)) > 1
    run(copy, "bound")
    assert 0 < metrics(copy, "bound")["nats_per_token"] < math.inf


def test_a_student_of_text_learns_from_its_teacher(copy: Path) -> None:
    write_params(copy, {"train_steps": 10})
    run(copy, "train")
    shutil.copytree(copy / "data" / "model", copy / "data" / "teacher")
    distilled = {"distill": {"teacher": "data/teacher", "steps": 4}, "sampler": "consistency", "sample_steps": 1}
    write_params(copy, {"train_steps": 10, **distilled})
    run(copy, "train", "sample", "text.evaluate")
    assert metrics(copy)["nfe"] == 1


@pytest.mark.parametrize(("kind", "method"), [("bytes", "lcmd"), ("characters", "maskgit")])
def test_any_text_runs_through(kind: str, method: str, tmp_path: Path) -> None:
    folder = prepare(tmp_path, {"method": method, "text": {"reduce": "none", "vocabulary": kind}})
    path = folder / "texts" / "tiny" / "f0.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("cat", "Kätzchen"), encoding="utf-8")
    found, _ = corpus.scan("tiny", folder / "texts" / "tiny")
    corpus.write(found, folder / "data" / "manifests" / "tiny.json")
    run(folder, *STAGES)
    numbers, bound = metrics(folder), metrics(folder, "bound")
    heldout = shards.read_split(folder / "data" / "tokens", "heldout").tokens.numpy().ravel()
    characters = len(vocabulary.load(folder / "data" / "vocabulary.json").decode(heldout))
    expected = bound["nats_per_token"] * len(heldout) / characters / math.log(2)
    assert numbers["bits_per_character"] == pytest.approx(expected, rel=1e-5)
    assert (characters < len(heldout)) == (kind == "bytes")
