"""Rows that learn from the model of another row: in which order, from which model, and what if that is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import inside
from tests.pipeline_imports import ROOT
from vqlcmd.experiments import runner
from vqlcmd.experiments.queue import Queue
from vqlcmd.experiments.results import ResultsFile
from vqlcmd.experiments.table import Run, Table, experiment_name, overridden, runs
from vqlcmd.experiments.teachers import taught_by, teacher_of
from vqlcmd.runtime.yaml_file import read_yaml

BASE = read_yaml(ROOT / "presets" / "digits_table.yaml")
VALUES = {
    "title": "T",
    "metrics": ["fid"],
    "sweep": {"sample_steps": [1, 4]},
    "rows": {
        "Student, short": {"teacher": "long, DDIM", "set": {"sampler": "consistency"}},
        "long, DDIM": {"set": {"sampler": "ddim"}},
    },
}
TABLE = Table.model_validate(VALUES)


def lesson(base: dict[str, Any], seed: int = 0) -> tuple[Run, Run, str]:
    """The student's first run, its teacher's, and the identity of that."""
    student = next(run for run in runs(TABLE, base, [seed]) if run.row == "Student, short")
    teacher = teacher_of(TABLE, base, student)
    assert teacher is not None
    identity = runner._identity(teacher.params)
    return taught_by(student, base, teacher, identity), teacher, identity


def test_a_students_folder_is_its_teachers_name_with_all_that_decides_the_teacher() -> None:
    with inside(ROOT):
        student, teacher, identity = lesson(BASE)
        assert (teacher.row, teacher.value, teacher.seed) == ("long, DDIM", 1, 0)
        folder = f"data/teachers/long-ddim-s0-{identity}"
        assert student.params.distill.teacher == student.overrides["distill.teacher"] == folder
        assert folder.endswith(experiment_name(teacher, identity))
        others = [lesson(overridden(BASE, {"lambda_cm": 0.5}))[0], lesson(BASE, seed=1)[0]]
        found = {run.params.distill.teacher for run in (student, *others)}
        assert len(found) == len({runner._identity(run.params) for run in (student, *others)}) == 3


def test_a_row_without_a_teacher_has_none() -> None:
    assert [teacher_of(TABLE, BASE, run) for run in runs(TABLE, BASE, [0]) if run.row == "long, DDIM"] == [None, None]


@pytest.mark.parametrize(
    ("there", "made", "order"),
    [
        (False, True, [("long, DDIM", 1), ("Student, short", 1), ("Student, short", 4)]),
        (True, True, [("Student, short", 1), ("Student, short", 4)]),
        (False, False, [("long, DDIM", 1)]),
    ],
)
def test_teachers_run_first_and_a_student_does_not_run_without_its_teachers_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, made: bool, order: list[tuple[str, int]]
) -> None:
    for name in ("vqlcmd", "stages", "dvc.yaml", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "t.yaml").write_text(json.dumps(VALUES), encoding="utf-8")
    (tmp_path / "params.yaml").write_text(json.dumps(BASE), encoding="utf-8")
    asked, said = list[tuple[str, Any]](), list[str]()

    def run(_: Queue, wave: dict[str, Run], __: ResultsFile) -> list[str]:
        asked.extend((each.row, each.value) for each in wave.values())
        return []

    monkeypatch.setattr(Queue, "run", run)
    monkeypatch.setattr(runner, "_raise_if_changed", lambda: None)
    monkeypatch.setattr(runner, "placed", lambda *_: there or (made and bool(asked)))
    monkeypatch.setattr("vqlcmd.experiments.results.experiments", dict)
    with inside(tmp_path):
        well = runner.run_table("t", [0], 1, None, ["Student, short"], say=said.append)
    assert asked == order
    assert well == made
    missing = [line for line in said if "the model of long, DDIM, its teacher, is not here" in line]
    assert len(missing) == (0 if made else 2)


def test_what_rows_share_are_the_stages_whose_parameters_are_alike() -> None:
    rows = {
        "method": ({"a": {}, "b": {"set": {"method": "mdlm"}}}, ["vqgan", "tokenize", "reference"]),
        "sampler": ({"a": {}, "b": {"set": {"sampler": "ddim"}}}, ["train", "bound"]),
        "tokenizer": ({"a": {}, "b": {"set": {"vqgan.n_embed": 32}}}, []),
    }
    with inside(ROOT):
        for several, expected in rows.values():
            table = Table.model_validate({"title": "T", "metrics": ["fid"], "rows": several})
            found = runner._shared(table, runs(table, BASE, [0]))
            assert set(expected) <= set(found)
            assert not {"sample", "evaluate"} & set(found)
            assert found or not expected
            assert ("train" in found) == ("train" in expected)
            assert ("vqgan" in found) == bool(expected)
