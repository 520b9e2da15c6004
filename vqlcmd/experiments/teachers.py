"""Rows that learn from the model of another row, `teacher`: which row, which run of it, and a copy of its model.

A teacher's folder is named by a digest of all that decides its model, so another teacher is another experiment.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vqlcmd.experiments.identity import identity_of
from vqlcmd.experiments.results import call, experiments, fetched
from vqlcmd.experiments.table import TEACHERS, Run, Table, experiment_name, overridden, runs
from vqlcmd.params import check_run
from vqlcmd.runtime import paths


@dataclass(frozen=True)
class Lesson:
    """Whom a student learns from: the teacher's run, the identity of its experiment, and that of its training alone."""

    teacher: Run
    identity: str
    model: str

    @property
    def folder(self) -> Path:
        """Where the student finds the teacher's model."""
        return TEACHERS / self.model


def lesson_of(table: Table, base: dict[str, Any], run: Run) -> Lesson | None:
    """What `run` learns from, at its own seed; None if it learns from no other row of `table`."""
    row = table.rows[run.row].teacher
    if row is None:
        return None
    teacher = runs(table.only([row]), base, [run.seed])[0]
    return Lesson(teacher, identity_of(teacher.params), identity_of(teacher.params, ["train"]))


def taught_by(run: Run, base: dict[str, Any], lesson: Lesson) -> Run:
    """`run` with the folder of its teacher among its overrides."""
    overrides = {**run.overrides, "distill.teacher": lesson.folder.as_posix()}
    return replace(run, overrides=overrides, params=check_run(overridden(base, overrides), f"row {run.row!r}"))


def placed(lesson: Lesson) -> bool:
    """Copies a teacher's model to where its students look for it; returns whether it is there.

    If DVC lists the teacher's experiment and no longer has its model, as after `dvc gc`, the experiment is removed from
    the list, so that it runs again.
    """
    target, revision = lesson.folder / paths.MODEL.name, experiments().get(lesson.identity)
    if not target.is_file() and revision is not None and not fetched(revision, target):
        call(["dvc", "exp", "remove", experiment_name(lesson.teacher, lesson.identity)], check=False)
    return target.is_file()
