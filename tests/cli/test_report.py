"""`vqlcmd report`: what it prints is of the parameters and data that are here, or it says of which not."""

import shutil
from pathlib import Path

import pytest

from tests.checkpoints import tamings
from tests.conftest import TINY, inside, merge, prepare, run_stages, write_params
from vqlcmd.cli.report import print_report, stale
from vqlcmd.runtime.files import sha256


def said(folder: Path) -> list[str]:
    with inside(folder):
        return list(stale())


def test_a_finished_run_is_of_its_own_parameters(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(finished) == []
    with inside(finished):
        print_report()
    text = capsys.readouterr().out
    assert "fid_proxy" in text
    assert "metrics/grid.png" in text
    # How many images the numbers are of, where they are few.
    assert "50 generated" in " ".join(text.split())
    assert "biased upwards" in text


def test_in_a_fresh_clone_it_says_that_no_run_was_made_here(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It printed the authors' numbers as the last run's."""
    for path in (copy / "data").iterdir():
        if path.name != "manifests":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (copy / "metrics" / "grid.png").unlink()
    lines = said(copy)
    assert len(lines) == 1
    assert lines[0].startswith("No run was made here: these are the numbers that were committed")
    with inside(copy):
        print_report()
    assert "grid.png" not in capsys.readouterr().out, "a picture that is not there"


def test_after_an_interrupted_training_it_says_what_is_of_the_run_before(copy: Path) -> None:
    """DVC removes a stage's outputs before it runs the stage: Ctrl-C, and `report` printed the old table, exit 0."""
    write_params(copy, merge(TINY, {"train_steps": 5000}))
    shutil.rmtree(copy / "data" / "model")
    lines = said(copy)
    assert lines[0].startswith("data/model/model.safetensors: not there, so a run was interrupted or is going on")


CHANGES = {
    "train_steps": (
        {"train_steps": 80},
        ["data/model/model.safetensors is older than params.yaml: train_steps 70 -> 80"],
    ),
    "sample_steps": ({"sample_steps": 4}, ["data/samples is older than params.yaml: sample_steps 3 -> 4"]),
    "bound.levels": ({"bound": {"levels": 5}}, ["metrics/bound.json is older than params.yaml: bound.levels 4 -> 5"]),
    "vqgan.seed": ({"vqgan": {"seed": 3}}, ["data/vqgan.safetensors is older than params.yaml: vqgan.seed 0 -> 3"]),
    "evaluate": (
        {"evaluate": {"neighbours": 4}},
        ["metrics/evaluate.json is older than params.yaml: evaluate.neighbours 3 -> 4"],
    ),
    "holdout": ({"tokenize": {"holdout": 0.2}}, ["data/tokens is older than params.yaml: tokenize.holdout 0.1 -> 0.2"]),
    "no result's": ({"train": {"save_every": 9}, "sample": {"batch_size": 9}}, []),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_older_than_the_parameters_is_named_with_the_change(copy: Path, name: str) -> None:
    changes, expected = CHANGES[name]
    write_params(copy, merge(TINY, changes))
    assert said(copy) == expected


TAKEN = {
    "the digest that the stage found": (lambda path: {"sha256": sha256(path)}, None),
    "another digest": (lambda path: {"sha256": "a" * 64}, "vqgan.sha256 "),
    "another file of the same name": (
        lambda path: {"checkpoint": str(path.parent / "other" / path.name)},
        "vqgan.checkpoint 'last.ckpt (",
    ),
    "another format": (lambda path: {"format": "taming"}, "vqgan.format 'auto' -> 'taming'"),
    "what a file that is taken knows nothing of": (lambda path: {"seed": 3}, None),
    "none": (lambda path: {"checkpoint": None}, "vqgan.checkpoint 'last.ckpt ("),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_tokenizer_that_was_taken_is_of_the_parameters_that_named_it(name: str, tmp_path: Path) -> None:
    path, (change, expected) = tamings(tmp_path / "files"), TAKEN[name]
    folder = prepare(tmp_path / "run", {"vqgan": {"checkpoint": str(path)}})
    run_stages(folder, "vqgan")
    start = "data/vqgan.safetensors is older than params.yaml: "
    assert not [line for line in said(folder) if line.startswith(start)]
    write_params(folder, merge(TINY, {"vqgan": {"checkpoint": str(path)} | change(path)}))
    lines = [line for line in said(folder) if line.startswith(start)]
    assert lines == [] if expected is None else lines[0].startswith(start + expected)


def test_numbers_of_other_samples_or_of_another_model_are_named(copy: Path) -> None:
    write_params(copy, merge(TINY, {"sample_steps": 4}))
    run_stages(copy, "sample")
    lines = said(copy)
    assert "metrics/evaluate.json is not of the present data/samples" in lines
    assert not [line for line in lines if "bound.json" in line]
    write_params(copy, merge(TINY, {"train_steps": 20}))
    run_stages(copy, "train")
    lines = said(copy)
    assert "metrics/bound.json is not of the present data/model/model.safetensors" in lines
    assert any("data/samples do not belong together, they come from different models" in line for line in lines)


def test_metrics_that_do_not_say_what_they_are_of_are_named(copy: Path) -> None:
    (copy / "metrics" / "origin" / "bound.json").unlink()
    assert said(copy) == ["metrics/bound.json does not say what it was made from: it is of another version"]
