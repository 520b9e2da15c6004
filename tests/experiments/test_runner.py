"""`vqlcmd table run` under DVC, in a clone: rows run once, share models, and go on after an interruption. Minutes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import TINY, merge, write_params
from tests.repository.test_dvc import (  # noqa: F401
    clone,
    environment,
    round_as_another_processor,
    run,
    wait_for_state,
)
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.safetensors_file import read_about

pytestmark = pytest.mark.slow
TABLE = {
    "title": "Tiny",
    "metrics": ["fid"],
    "rows": {"plain": {"paper": [1.5]}, "dropped": {"set": {"drop": 0.3}}, "guided": {"set": {"guidance": 1}}},
}
TAUGHT = {
    "title": "Taught",
    "metrics": ["fid"],
    "sweep": {"sample_steps": [1, 2]},
    "rows": {
        "plain": {},
        "student": {"teacher": "plain", "set": {"sampler": "consistency", "train.ema": 0.5}},
        "dropped": {"set": {"drop": 0.4}},
    },
}


def table(folder: Path, *arguments: str, fails: bool = False) -> str:
    return run(folder, sys.executable, "-m", "vqlcmd.cli.main", "table", *arguments, fails=fails)


@pytest.fixture(scope="module")
def small(clone: Path) -> Path:  # noqa: F811
    (clone / "tables" / "small.yaml").write_text(json.dumps(TABLE), encoding="utf-8")
    run(clone, "git", "add", "--all")
    run(clone, "git", "commit", "--quiet", "--message", "a table")
    return clone


def test_a_tables_rows_run_once_and_those_that_differ_in_sampling_share_a_model(small: Path) -> None:
    """Beside dvc.lock and metrics/ as another processor rounds them, too: a newcomer's, after `make demo`."""
    dirty = round_as_another_processor(small)
    printed = table(small, "run", "small", "--jobs", "2")
    assert "3 experiments, 0 of them done" in printed
    assert run(small, "git", "status", "--porcelain", "--untracked-files=no") == dirty
    assert "3 of them done" in table(small, "run", "small")
    assert "1 experiments, 1 of them done" in table(small, "run", "small", "--row", "guided", "--seed", "0")
    shown = table(small, "show", "small")
    assert "1.50" in shown
    assert shown.count(" 4 ") + shown.count(" 8 ") >= 3, "network calls, twice as many with guidance"
    rows = json.loads((small / "tables/results/small.json").read_text(encoding="utf-8"))["rows"]
    models = {row["row"]: run(small, "git", "show", f"{row['revision']}:dvc.lock") for row in rows}
    train = {row: lock.partition("\n  train:")[2].partition("outs:")[2][:200] for row, lock in models.items()}
    assert train["plain"] == train["guided"] != train["dropped"]
    assert "small" in table(small, "list")
    run(small, "git", "checkout", "--quiet", ".")


def test_an_uncommitted_change_is_refused_in_one_line(small: Path) -> None:
    write_params(small, merge(TINY, {"drop": 0.7}))
    assert "params.yaml has changes that are not committed" in table(small, "run", "small", fails=True)
    run(small, "git", "checkout", "--quiet", "params.yaml")


def start(folder: Path, steps: int) -> "subprocess.Popen[bytes]":
    """A table that trains for a while, and has begun."""
    write_params(folder, merge(TINY, {"train_steps": steps, "train": {"save_every": 3}}))
    run(folder, "git", "commit", "--quiet", "--all", "--message", "longer")
    command = [sys.executable, "-m", "vqlcmd.cli.main", "table", "run", "small"]
    process = subprocess.Popen(command, cwd=folder, env=environment(), start_new_session=True)
    wait_for_state(folder)
    return process


def test_an_interrupted_table_goes_on_with_the_state_it_left(small: Path) -> None:
    process = start(small, steps=1500)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    time.sleep(2)
    assert list(small.glob(".state/train/*/[0-9]*.pt")), "an interrupted row keeps its state"
    assert not {"Running", "Queued"} & set(run(small, "dvc", "queue", "status").split())
    table(small, "run", "small")
    assert not list(small.glob(".state/train/*/[0-9]*.pt"))
    assert "3 of them done" in table(small, "run", "small")


def test_a_table_whose_machine_went_down_goes_on(small: Path) -> None:
    """DVC says of such rows that they run, and `table run` waited for them for ever."""
    process = start(small, steps=1501)
    for each in psutil.process_iter(["cwd"]):
        if each.info["cwd"] and Path(each.info["cwd"]).is_relative_to(small):
            each.kill()
    process.wait(timeout=60)
    assert "Running" in run(small, "dvc", "queue", "status")
    table(small, "run", "small")
    assert not list(small.glob(".state/train/*/[0-9]*.pt"))
    assert "3 of them done" in table(small, "run", "small")


def test_a_student_learns_from_the_model_of_its_teachers_row_and_rows_side_by_side_share_what_is_alike(
    small: Path,
) -> None:
    """In a fresh clone two rows at a time wanted one state of `tokenize`, and all but one failed."""
    (small / "tables" / "taught.yaml").write_text(json.dumps(TAUGHT), encoding="utf-8")
    # Another tokenizer, so that nothing is in DVC's cache.
    write_params(small, merge(TINY, {"vqgan": {"seed": 5}}))
    run(small, "git", "add", "--all")
    run(small, "git", "commit", "--quiet", "--message", "taught")
    printed = table(small, "run", "taught", "--row", "student", "--row", "dropped", "--jobs", "2")
    assert "vqgan, tokenize, method, reference: once for all rows" in printed
    rows = json.loads((small / "tables/results/taught.json").read_text(encoding="utf-8"))["rows"]
    named = [(name, value) for name in ("dropped", "plain", "student") for value in (1, 2)]
    assert sorted((row["row"], row["value"]) for row in rows) == [each for each in named if each != ("plain", 2)]
    student = next(row for row in rows if row["row"] == "student")
    (copied,) = (small / "data" / "teachers").glob("*/model.safetensors")
    run(small, "dvc", "get", ".", "data/model/model.safetensors", "--rev", student["revision"], "-o", "student.st")
    assert read_about(small / "student.st")["teacher_digest"] == sha256(copied)
    assert "shared-" not in run(small, "dvc", "exp", "list")
    assert "6 experiments, 5 of them done" in table(small, "run", "taught")
