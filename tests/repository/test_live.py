"""What DVC shows of a training while it runs: the workspace's, and one in a copy of the working tree. Minutes."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY, merge, write_params
from tests.pipeline_imports import ROOT
from tests.repository.test_dvc import environment, run

pytestmark = pytest.mark.slow
SECONDS = 180


@pytest.fixture(scope="module")
def tokenized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with tokens, committed, and hours of training ahead."""
    folder = tmp_path_factory.mktemp("live") / "clone"
    run(ROOT, "git", "clone", "--quiet", str(ROOT), str(folder))
    for name in ("vqlcmd", "stages"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    write_params(folder, merge(TINY, {"train_steps": 10**6, "train": {"log_every": 3}}))
    run(folder, "dvc", "repro", "tokenize")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "tokens")
    return folder


def shown(folder: Path, executor: str) -> dict[str, Any] | None:
    """metrics/train.json of the running experiment, as `dvc exp show` has it."""
    for baseline in json.loads(run(folder, "dvc", "exp", "show", "--json", "--force")):
        for experiment in baseline["experiments"] or []:
            if (experiment["executor"] or {}).get("name") == executor:
                metrics = experiment["revs"][0]["data"]["metrics"]
                return (metrics.get("metrics/train.json") or {}).get("data")
    return None


@pytest.mark.parametrize(("options", "executor"), [((), "workspace"), (("--temp",), "tempdir")])
def test_a_running_experiment_shows_its_losses(tokenized: Path, options: tuple[str, ...], executor: str) -> None:
    command = ["dvc", "exp", "run", *options, "-S", "seed=5", "train"]
    with (tokenized.parent / "output").open("w") as output:
        process = subprocess.Popen(
            command, cwd=tokenized, env=environment(), start_new_session=True, stdout=output, stderr=output
        )
    try:
        deadline, steps = time.monotonic() + SECONDS, set[int]()
        while len(steps) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline, steps
            row = shown(tokenized, executor)
            if row is not None:
                assert row["loss"] > 0
                assert row["heldout_loss"] > 0
                steps.add(row["step"])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
