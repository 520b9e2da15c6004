"""What DVC shows of a training while it runs, in the workspace and in a copy of it, or cannot start. Minutes."""

import json
import os
import re
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


def shown(folder: Path, executor: str) -> dict[str, Any]:
    """{file: values} of the running experiment's metrics, as `dvc exp show` has them."""
    for baseline in json.loads(run(folder, "dvc", "exp", "show", "--json", "--force")):
        for experiment in baseline["experiments"] or []:
            if (experiment["executor"] or {}).get("name") == executor:
                metrics = experiment["revs"][0]["data"]["metrics"]
                return {name: found["data"] for name, found in metrics.items() if found and "data" in found}
    return {}


@pytest.mark.parametrize(("options", "executor"), [((), "workspace"), (("--temp",), "tempdir")])
def test_a_running_experiment_shows_its_losses(tokenized: Path, options: tuple[str, ...], executor: str) -> None:
    command = ["dvc", "exp", "run", *options, "-S", "seed=5", "train"]
    with (tokenized.parent / "output").open("w") as output:
        process = subprocess.Popen(
            command, cwd=tokenized, env=environment(), start_new_session=True, stdout=output, stderr=output
        )
    try:
        deadline, steps, metrics = time.monotonic() + SECONDS, set[int](), dict[str, Any]()
        while len(steps) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline, steps
            row = (metrics := shown(tokenized, executor)).get("metrics/train.json")
            if row is not None:
                assert row["loss"] > 0
                assert row["heldout_loss"] > 0
                steps.add(row["step"])
        # The commit has these two: of another model.
        baseline = {"metrics/bound.json", "metrics/evaluate.json"}
        assert baseline & metrics.keys() == (set() if "--temp" in options else baseline)
        assert "metrics/vqgan.json" in metrics
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_an_unknown_method_gives_those_there_are_where_the_tokens_are_made(tokenized: Path) -> None:
    for options in ((), ("--temp",)):
        done = subprocess.run(
            ["dvc", "exp", "run", *options, "-S", "method=foo"],
            cwd=tokenized,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode != 0
        said = done.stdout + done.stderr
        assert re.search(r"method: .*foo.*lcmd.*maskgit", said), said
        assert "Errno" not in said
        run(tokenized, "git", "checkout", "--", "params.yaml", "dvc.lock")
