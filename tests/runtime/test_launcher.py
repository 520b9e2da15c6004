"""Stages as processes: killed, interrupted, doubled, and several at a time."""

import csv
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY, merge, write_params
from vqlcmd.runtime.files import sha256
from vqlcmd.tokens import shards

# Long enough to be caught in the act.
LONG = {"train_steps": 120, "train": {"save_every": 3, "log_every": 60}}


def start(folder: Path, stage: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # Tests that a shell started in the background are deaf to SIGINT, and so would be their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(folder: Path, stage: str, **environment: str) -> str:
    process = start(folder, stage, **environment)
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 0, text
    return text


def wait_for_state(folder: Path, process: subprocess.Popen[str]) -> None:
    """Until training has saved something, and is some steps further."""
    deadline = time.monotonic() + 60
    while not list(folder.glob(".state/train/*/[0-9]*.pt")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def long(copy: Path) -> Path:
    write_params(copy, merge(TINY, LONG))
    return copy


@pytest.fixture(scope="module")
def uninterrupted(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the model that LONG makes when nothing happens."""
    import shutil

    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("long") / "run"))
    write_params(folder, merge(TINY, LONG))
    finish(folder, "train")
    return sha256(folder / "data/model/model.safetensors")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, -9),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 130, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_ends_as_the_uninterrupted_one(
    long: Path, uninterrupted: str, number: signal.Signals, code: int
) -> None:
    process = start(long, "train")
    wait_for_state(long, process)
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == code, text
    assert "Traceback" not in text
    assert re.search(r"^train: goes on from step [1-9]\d*$", finish(long, "train"), re.MULTILINE)
    assert sha256(long / "data/model/model.safetensors") == uninterrupted


@pytest.mark.slow
def test_another_parameter_does_not_pick_up_foreign_state(long: Path, uninterrupted: str) -> None:
    write_params(long, merge(merge(TINY, LONG), {"drop": 0.5}))
    process = start(long, "train")
    wait_for_state(long, process)
    process.kill()
    process.communicate()
    write_params(long, merge(TINY, LONG))
    finish(long, "train")
    assert sha256(long / "data/model/model.safetensors") == uninterrupted


def test_a_second_writer_of_the_same_run_is_refused_in_one_line(long: Path) -> None:
    first = start(long, "train")
    wait_for_state(long, first)
    # Held where it is: on a busy machine it would have ended before the second has begun.
    first.send_signal(signal.SIGSTOP)
    second = start(long, "train")
    text, _ = second.communicate(timeout=120)
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert text.count("\n") == 1, text
    assert f"in use by process {first.pid}" in text


@pytest.mark.slow
def test_two_processes_train_the_same_model_up_to_summation_order(copy: Path) -> None:
    """Compared by curves, not weights: where a gradient is zero but for rounding, Adam makes a step of the rounding."""
    write_params(copy, merge(TINY, {"network": {"dropout": 0.0}, "train_steps": 20, "train": {"log_every": 1}}))
    finish(copy, "train")
    alone = curves(copy)
    finish(copy, "train", VQLCMD_NPROC="2")
    together = curves(copy)
    for name in ("loss", "rec", "diff", "cm", "grad_norm", "embedding_norm", "ce_0.5"):
        assert np.allclose(alone[name], together[name], rtol=2e-3), name
        assert np.allclose(alone[name][:3], together[name][:3], rtol=1e-5), f"{name}, before rounding has grown"


@pytest.mark.slow
def test_two_processes_draw_the_same_samples(copy: Path, finished: Path) -> None:
    finish(copy, "sample", VQLCMD_NPROC="2")
    one, two = (shards.read_split(folder / "data/samples", "samples").tokens.numpy() for folder in (finished, copy))
    assert np.mean(one == two) >= 0.999


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", ["", "5"])
def test_three_processes_that_were_interrupted_end_as_three_that_were_not(copy: Path, micro_batch: str) -> None:
    """A sum of three numbers depends on their order, which PyTorch chooses after the first steps of each start."""
    machine = {"VQLCMD_NPROC": "3"} | ({"VQLCMD_MICRO_BATCH": micro_batch} if micro_batch else {})
    write_params(copy, merge(TINY, merge(LONG, {"train": {"batch_size": 33}})))
    finish(copy, "train", **machine)
    expected = sha256(copy / "data/model/model.safetensors")
    process = start(copy, "train", **machine)
    wait_for_state(copy, process)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "train: goes on from step" in finish(copy, "train", **machine)
    assert sha256(copy / "data/model/model.safetensors") == expected


@pytest.mark.slow
def test_when_a_worker_dies_the_others_end_and_the_next_start_resumes(long: Path) -> None:
    process = start(long, "train", VQLCMD_NPROC="2")
    wait_for_state(long, process)
    workers = children(process.pid)
    os.kill(workers[1], signal.SIGKILL)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "process 1 of 2 ended with -9" in text
    assert not any(alive(worker) for worker in workers)
    finish(long, "train", VQLCMD_NPROC="2")


@pytest.mark.slow
def test_when_the_launcher_dies_no_worker_keeps_writing(long: Path) -> None:
    process = start(long, "train", VQLCMD_NPROC="2")
    wait_for_state(long, process)
    workers = children(process.pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 20
    while any(alive(worker) for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(alive(worker) for worker in workers)


def curves(folder: Path) -> dict[str, list[float]]:
    with (folder / "metrics/train.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    return [int(child) for child in text.split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_processes_that_do_not_share_a_state_refuse_to_go_on(long: Path, tmp_path: Path) -> None:
    """Process 0 went on from its step, the others began, and what came out was no model."""
    process = start(long, "train")
    wait_for_state(long, process)
    process.terminate()
    process.communicate(timeout=60)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    places = {"0": long / ".state", "1": tmp_path / "elsewhere"}
    machines = [
        start(long, "train", RANK=rank, LOCAL_RANK="0", VQLCMD_STATE=str(place), **group)
        for rank, place in places.items()
    ]
    for machine in machines:
        text, _ = machine.communicate(timeout=60)
        assert machine.returncode == 1, text
        assert "VQLCMD_STATE must be a folder that all machines share" in text
        assert "Traceback" not in text
