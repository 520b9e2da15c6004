"""The pipeline as DVC runs it, in a clone: what the README says of repro, experiments and the queue. Minutes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import TINY, merge, write_params
from tests.pipeline_imports import ROOT
from vqlcmd.runtime.files import sha256

pytestmark = pytest.mark.slow
MODEL = "data/model/model.safetensors"


def run(folder: Path, *command: str, fails: bool = False) -> str:
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def environment() -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    author = {f"GIT_{who}_{what}": "tests@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    # PYTHONSAFEPATH would keep `python -m stages.NAME` from finding a snapshot's own code.
    return {**os.environ, **author, "PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with tiny parameters, in which `dvc repro` has run and its results are committed."""
    folder = tmp_path_factory.mktemp("dvc") / "clone"
    run(ROOT, "git", "clone", "--quiet", str(ROOT), str(folder))
    for name in ("vqlcmd", "stages"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    write_params(folder, TINY)
    run(folder, "dvc", "repro")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "tiny")
    return folder


def test_a_second_repro_has_nothing_to_do_and_leaves_git_clean(clone: Path) -> None:
    assert "Data and pipelines are up to date" in run(clone, "dvc", "repro")
    assert run(clone, "git", "status", "--porcelain") == ""


def test_an_ablation_row_does_not_compute_the_tokens_again(clone: Path) -> None:
    text = run(clone, "dvc", "exp", "run", "--temp", "--name", "drop", "-S", "drop=0.3")
    for stage in ("vqgan", "tokenize", "reference"):
        assert f"Running stage '{stage}'" not in text
    for stage in ("train", "sample", "evaluate"):
        assert f"Running stage '{stage}'" in text
    assert run(clone, "git", "status", "--porcelain") == ""


def test_a_sampling_row_trains_nothing(clone: Path) -> None:
    text = run(clone, "dvc", "exp", "run", "--temp", "-S", "guidance=1")
    assert "Running stage 'train'" not in text
    assert "Running stage 'bound'" not in text
    assert "Running stage 'sample'" in text


def test_an_experiment_runs_beside_numbers_that_another_processor_rounded(clone: Path) -> None:
    """After `make demo` a newcomer's `git status` names dvc.lock and metrics/ from the first minute."""
    dirty = round_as_another_processor(clone)
    text = run(clone, "dvc", "exp", "run", "--temp", "-S", "guidance=2")
    assert "Running stage 'train'" not in text
    assert "Running stage 'evaluate'" in text
    assert run(clone, "git", "status", "--porcelain") == dirty
    run(clone, "git", "checkout", "--quiet", ".")


def test_queued_rows_run_and_can_be_compared(clone: Path) -> None:
    run(clone, "dvc", "exp", "run", "--queue", "-S", "sample_steps=1,2")
    start_worker(clone)
    deadline = time.monotonic() + 300
    while run(clone, "dvc", "queue", "status").count("Success") < 2:
        assert time.monotonic() < deadline, run(clone, "dvc", "queue", "status")
        time.sleep(2)
    shown = json.loads(run(clone, "dvc", "exp", "show", "--json"))
    rows = [row for baseline in shown for row in baseline["experiments"] or []]
    assert len(rows) >= 2
    names = run(clone, "dvc", "exp", "list", "--name-only").split()
    assert "fid_proxy" in run(clone, "dvc", "metrics", "diff", names[0])
    run(clone, "dvc", "plots", "diff", names[0])
    page = (clone / "dvc_plots" / "index.html").read_text(encoding="utf-8")
    assert re.search(r'src="https://[^"]*vega', page), "the README says that its curves come from the Internet"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_repro_goes_on_after_an_interruption_and_ends_the_same(clone: Path, number: signal.Signals) -> None:
    long = {"train_steps": 600, "seed": int(number), "train": {"save_every": 3, "log_every": 50}}
    write_params(clone, merge(TINY, long))
    expected = trained(clone)
    run(clone, "git", "reset", "--quiet", "--hard")
    shutil.rmtree(clone / ".dvc" / "cache" / "runs")  # or DVC would bring the model back without training
    write_params(clone, merge(TINY, long))
    process = subprocess.Popen(["dvc", "repro", "train"], cwd=clone, env=environment(), start_new_session=True)
    wait_for_state(clone)
    os.killpg(process.pid, number)
    assert process.wait() != 0
    run(clone, "dvc", "repro", "train")
    assert sha256(clone / MODEL) == expected
    run(clone, "git", "reset", "--quiet", "--hard")
    run(clone, "dvc", "checkout", "--force")


def test_a_killed_queue_row_goes_on_when_it_is_queued_again(clone: Path) -> None:
    write_params(clone, merge(TINY, {"train_steps": 2000, "seed": 7, "train": {"save_every": 3}}))
    expected = trained(clone)
    run(clone, "git", "reset", "--quiet", "--hard")
    run(clone, "dvc", "checkout", "--force")
    shutil.rmtree(clone / ".dvc" / "cache" / "runs")
    queue = ["dvc", "exp", "run", "--queue", "--name", "row", "-S", "train_steps=2000", "-S", "train.save_every=3"]
    run(clone, *queue, "-S", "seed=7")
    start_worker(clone)
    wait_for_state(clone)
    assert "has been killed" in run(clone, "dvc", "queue", "kill", "row")
    wait_for_row(clone, "row", "Failed")
    assert list(clone.glob(".state/train/*/[0-9]*.pt")), "a killed row keeps its state"
    run(clone, "dvc", "queue", "remove", "--failed")
    run(clone, *queue, "-S", "seed=7")
    start_worker(clone)
    wait_for_row(clone, "row", "Success")
    # Had the second run had another name for its state, the first one's would still lie there.
    assert not list(clone.glob(".state/train/*/[0-9]*.pt"))
    run(clone, "dvc", "exp", "apply", "row")
    assert sha256(clone / MODEL) == expected
    run(clone, "git", "reset", "--quiet", "--hard")
    run(clone, "dvc", "checkout", "--force")


def round_as_another_processor(folder: Path) -> str:
    """Change a digit of a number and its digest in dvc.lock; gives what `git status` then says."""
    for name, key in (("metrics/bound.json", '"nats_per_token": '), ("dvc.lock", "path: metrics/bound.json")):
        path, digits = folder / name, re.compile(r"[0-9a-f.]{5,}")
        before, found, after = path.read_text(encoding="utf-8").partition(key)
        assert found
        rounded = digits.sub(lambda number: number[0][:-1] + ("7" if number[0][-1] != "7" else "3"), after, count=1)
        path.write_text(before + found + rounded, encoding="utf-8")
    dirty = run(folder, "git", "status", "--porcelain")
    assert dirty.split() == ["M", "dvc.lock", "M", "metrics/bound.json"]
    return dirty


def start_worker(folder: Path) -> None:
    """Not by run(): the worker keeps the pipes open, and reading to their end would wait for all rows."""
    subprocess.run(
        ["dvc", "queue", "start"],
        cwd=folder,
        env=environment(),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for_row(folder: Path, name: str, expected: str) -> None:
    deadline = time.monotonic() + 300
    while True:
        rows = [line.split() for line in run(folder, "dvc", "queue", "status").splitlines() if f" {name} " in line]
        status = rows[0][-1] if rows else "absent"
        if status == expected:
            return
        assert status in ("Running", "Queued"), status
        assert time.monotonic() < deadline, status
        time.sleep(0.5)


def wait_for_state(folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not list(folder.glob(".state/train/*/[0-9]*.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def trained(folder: Path) -> str:
    run(folder, "dvc", "repro", "train")
    return sha256(folder / MODEL)
