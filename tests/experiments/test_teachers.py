"""Rows that learn from the model of another row: in which order, from which model, and what if that is missing."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import inside
from tests.pipeline_imports import ROOT
from vqlcmd.experiments import results, runner, teachers
from vqlcmd.experiments.identity import identity_of
from vqlcmd.experiments.queue import Queue
from vqlcmd.experiments.results import ResultsFile
from vqlcmd.experiments.table import Run, Table, overridden, runs
from vqlcmd.experiments.teachers import Lesson, lesson_of, taught_by
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


def student_of(base: dict[str, Any], seed: int = 0) -> tuple[Run, Lesson]:
    """The student's first run, and whom it learns from."""
    student = next(run for run in runs(TABLE, base, [seed]) if run.row == "Student, short")
    lesson = lesson_of(TABLE, base, student)
    assert lesson is not None
    return taught_by(student, base, lesson), lesson


def test_a_teachers_folder_is_named_by_what_decides_its_model_and_by_nothing_else() -> None:
    with inside(ROOT):
        student, lesson = student_of(BASE)
        assert (lesson.teacher.row, lesson.teacher.value, lesson.teacher.seed) == ("long, DDIM", 1, 0)
        assert lesson.model == identity_of(lesson.teacher.params, ["train"])
        assert lesson.identity == identity_of(lesson.teacher.params)
        assert student.params.distill.teacher == student.overrides["distill.teacher"] == f"data/teachers/{lesson.model}"
        alike = student_of(overridden(BASE, {"sample_steps": 7, "evaluate.batch_size": 7}))[0]
        assert alike.params.distill.teacher == student.params.distill.teacher
        others = [student_of(overridden(BASE, {"lambda_cm": 0.5}))[0], student_of(BASE, seed=1)[0]]
        found = {run.params.distill.teacher for run in (student, *others)}
        assert len(found) == len({identity_of(run.params) for run in (student, *others)}) == 3


def test_a_model_that_dvc_no_longer_has_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC refuses to queue an experiment whose name it lists, although `dvc gc` has removed its files."""
    teacher, asked = runs(TABLE, BASE, [0])[2], list[list[str]]()

    def call(command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        there = command[1] == "get" and cached
        if there:
            Path(command[-1]).write_text("weights", encoding="utf-8")
        return subprocess.CompletedProcess(command, 0 if there else 1, "", "")

    for module in (teachers, results):
        monkeypatch.setattr(module, "call", call)
    monkeypatch.setattr(teachers, "experiments", lambda: {"i": "c" * 40})
    with inside(tmp_path):
        cached = False
        assert not teachers.placed(Lesson(teacher, "other", "m"))
        assert asked == []
        assert not teachers.placed(Lesson(teacher, "i", "m"))
        assert asked[-1] == ["dvc", "exp", "remove", "long-ddim-s0-i"]
        cached = True
        assert teachers.placed(Lesson(teacher, "i", "m"))
        assert [path.name for path in Path("data/teachers/m").iterdir()] == ["model.safetensors"]
        asked.clear()
        assert teachers.placed(Lesson(teacher, "i", "m"))
        assert asked == []


def test_a_row_without_a_teacher_has_none() -> None:
    assert [lesson_of(TABLE, BASE, run) for run in runs(TABLE, BASE, [0]) if run.row == "long, DDIM"] == [None, None]


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
    asked, said, folders = list[tuple[str, Any]](), list[str](), set[str | None]()

    def run(_: Queue, wave: dict[str, Run], __: ResultsFile) -> list[str]:
        asked.extend((each.row, each.value) for each in wave.values())
        folders.update(each.params.distill.teacher for each in wave.values())
        return []

    monkeypatch.setattr(Queue, "run", run)
    monkeypatch.setattr(runner, "_raise_if_changed", lambda: None)
    monkeypatch.setattr(runner, "placed", lambda *_: there or (made and bool(asked)))
    monkeypatch.setattr("vqlcmd.experiments.results.experiments", dict)
    with inside(tmp_path):
        well = runner.run_table("t", [0], 1, None, ["Student, short"], say=said.append)
        expected = student_of(BASE)[0].params.distill.teacher
    assert folders == ({expected} if made else set()) | (set() if there else {None})
    assert asked == order
    assert well == made
    missing = "Student, short, seed 0 has not run, for want of the model of long, DDIM, its teacher: the same command"
    assert [line.startswith(missing) for line in said[1:]] == ([] if made else [True])


def test_what_rows_share_are_the_stages_whose_parameters_are_alike() -> None:
    alike = ["vqgan", "tokenize", "reference"]
    rows = [
        ({"a": {}, "b": {"set": {"method": "mdlm"}}}, alike),
        ({"a": {}, "b": {"set": {"sampler": "ddim"}}}, ["vqgan", "tokenize", "method", "train", "bound", "reference"]),
        ({"a": {}, "b": {"set": {"vqgan.n_embed": 32}}}, ["method"]),
        ({"a": {}, "b": {"teacher": "a", "set": {"sampler": "consistency"}}}, [*alike[:2], "method", "reference"]),
    ]
    with inside(ROOT):
        for several, expected in rows:
            table = Table.model_validate({"title": "T", "metrics": ["fid"], "rows": several})
            assert runner._shared(table, runs(table, BASE, [0])) == expected


def test_rows_are_prepared_only_where_several_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[str, list[str]]]()
    monkeypatch.setattr(Queue, "prepare", lambda _, identity, stages, run: asked.append((identity, stages)) or ["no"])
    table = Table.model_validate({"title": "T", "metrics": ["fid"], "rows": {"a": {}, "b": {"set": {"drop": 0.3}}}})
    several = {run.row: run for run in runs(table, BASE, [0])}
    with inside(ROOT):
        for jobs, missing in ((1, several), (2, {"a": several["a"]})):
            assert runner._prepare(Queue(table, {}, jobs, print), missing) == []
        assert asked == []
        assert runner._prepare(Queue(table, {}, 2, print), several) == ["no"]
        (identity, stages), *rest = asked
        assert not rest
        assert stages == ["vqgan", "tokenize", "method", "reference"]
        assert identity == identity_of(several["b"].params, stages)
