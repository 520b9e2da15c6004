"""Rows that learn from the model of another row, `teacher`: which row, which run of it, and a copy of its model.

A teacher's folder is named by a digest of all that decides its model, so another teacher is another experiment.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from vqlcmd.experiments.results import call, experiments
from vqlcmd.experiments.table import TEACHERS, Run, Table, experiment_name, overridden, runs
from vqlcmd.params import check_run
from vqlcmd.runtime import paths


def teacher_of(table: Table, base: dict[str, Any], run: Run) -> Run | None:
    """The run of `table` whose model `run` learns from, at the same seed; None if it learns from none."""
    teacher = table.rows[run.row].teacher
    return None if teacher is None else runs(table.only([teacher]), base, [run.seed])[0]


def taught_by(run: Run, base: dict[str, Any], teacher: Run, identity: str) -> Run:
    """`run` with the folder of its teacher, whose identity is `identity`, among its overrides."""
    overrides = {**run.overrides, "distill.teacher": _folder(teacher, identity).as_posix()}
    return replace(run, overrides=overrides, params=check_run(overridden(base, overrides), f"row {run.row!r}"))


def placed(teacher: Run, identity: str) -> bool:
    """Copies a teacher's model to where its students look for it; returns whether it is there.

    It is not if the teacher has not run in this clone, or is no longer in DVC's cache.
    """
    target = _folder(teacher, identity) / paths.MODEL.name
    revision = experiments().get(identity)
    if not target.is_file() and revision is not None:
        side = target.with_suffix(".part")
        side.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        done = call(["dvc", "get", ".", str(paths.MODEL), "--rev", revision, "-o", str(side)], check=False)
        if done.returncode == 0:
            os.replace(side, target)
    return target.is_file()


def _folder(teacher: Run, identity: str) -> Path:
    return TEACHERS / experiment_name(teacher, identity)
