"""dvc.yaml as data: what is removed from an experiment's copy."""

import shutil
from pathlib import Path

import pytest

from tests.pipeline_imports import ROOT
from vqlcmd.runtime import pipeline
from vqlcmd.runtime.yaml_file import read_yaml

PICTURES = {f"{name}.png" for name in ("reconstructions", "grid", "nearest", "embeddings", "schedule")}
TEXT = {"copied.json", "evaluate.json", "protocol.json", "samples.json"}
OF_SAMPLES = {"evaluate.json", "protocol.json", "origin/evaluate.json", "origin/figures.json"} | PICTURES


def filled(folder: Path, pipeline_file: str = "dvc.yaml") -> set[str]:
    """A checkout's metrics/ with a file of every stage; gives their names."""
    folder.mkdir(parents=True)
    shutil.copy(ROOT / pipeline_file, folder / "dvc.yaml")
    made = {out for stage in read_yaml(folder / "dvc.yaml")["stages"].values() for out in pipeline._made(stage)}
    names = {out.removeprefix("metrics/") for out in made if out.startswith("metrics/")}
    for name in names:
        (folder / "metrics" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "metrics" / name).touch()
    return names


def left(folder: Path) -> set[str]:
    return {f.relative_to(folder / "metrics").as_posix() for f in (folder / "metrics").rglob("*") if f.is_file()}


@pytest.mark.parametrize(
    ("stage", "gone"),
    [
        ("evaluate", PICTURES | {"origin/figures.json"}),
        ("sample", OF_SAMPLES),
        ("train", OF_SAMPLES | {"bound.json", "origin/bound.json"}),
        # Not train.json: DVC would train again to have it back.
        ("vqgan", OF_SAMPLES | {"bound.json", "origin/bound.json"}),
        ("bound", set()),
    ],
)
def test_an_experiments_copy_keeps_no_numbers_of_stages_that_are_yet_to_run(
    stage: str, gone: set[str], tmp_path: Path
) -> None:
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "tmpab12"
    before = filled(copy)
    assert gone <= before
    pipeline.forget_later_metrics(stage, copy)
    assert left(copy) == before - gone


@pytest.mark.parametrize(
    ("stage", "gone"),
    [("sample", TEXT), ("text.tokenize", TEXT | {"bound.json"})],
)
def test_a_copy_of_text_likewise(stage: str, gone: set[str], tmp_path: Path) -> None:
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "tmpab12"
    before = filled(copy, "pipelines/text.yaml")
    pipeline.forget_later_metrics(stage, copy)
    assert {name for name in before - left(copy) if "/" not in name} == gone
    assert {"train.json", "train.tsv"} <= left(copy)


def test_a_checkout_keeps_all_it_has(tmp_path: Path) -> None:
    before = filled(tmp_path / "checkout")
    pipeline.forget_later_metrics("train", tmp_path / "checkout")
    assert left(tmp_path / "checkout") == before
