"""Rows that learn from the model of another row, `teacher`: which row, which run of it, and a copy of its model.

A teacher's folder is named by a digest of all that decides its model, so another teacher is another experiment.
"""

from dataclasses import replace
from typing import Any

from vqlcmd.experiments.results import call, experiments, fetched
from vqlcmd.experiments.table import TEACHERS, Run, Table, experiment_name, overridden, runs
from vqlcmd.params import check_run
from vqlcmd.runtime import paths


def teacher_of(table: Table, base: dict[str, Any], run: Run) -> Run | None:
    """The run of `table` whose model `run` learns from, at the same seed; None if it learns from none."""
    teacher = table.rows[run.row].teacher
    return None if teacher is None else runs(table.only([teacher]), base, [run.seed])[0]


def taught_by(run: Run, base: dict[str, Any], model: str) -> Run:
    """`run` with the folder of its teacher, of whose `model` this is the digest, among its overrides."""
    overrides = {**run.overrides, "distill.teacher": (TEACHERS / model).as_posix()}
    return replace(run, overrides=overrides, params=check_run(overridden(base, overrides), f"row {run.row!r}"))


def placed(teacher: Run, identity: str, model: str) -> bool:
    """Copies a teacher's model to where its students look for it; returns whether it is there.

    `identity` is that of the teacher's experiment. If DVC lists the experiment and no longer has its model, as after
    `dvc gc`, it is removed from the list, so that it runs again.
    """
    target, revision = TEACHERS / model / paths.MODEL.name, experiments().get(identity)
    if not target.is_file() and revision is not None and not fetched(revision, target):
        call(["dvc", "exp", "remove", experiment_name(teacher, identity)], check=False)
    return target.is_file()
