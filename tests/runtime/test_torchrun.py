"""Two of PyTorch's launchers in one folder, as two machines with a shared file system would have them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY, merge, write_params
from tests.runtime.test_launcher import curves, finish, wait_for_state
from vqlcmd.runtime.files import sha256

pytestmark = pytest.mark.slow


def machines(folder: Path, stage: str) -> list[subprocess.Popen[str]]:
    """A torchrun with one process on each of two machines."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=test"]
    options = ["--nnodes=2", "--nproc-per-node=1", *meeting]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *options, "-m", f"stages.{stage}"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for _ in range(2)
    ]


def ended(processes: list[subprocess.Popen[str]]) -> tuple[list[int], str]:
    """Exit codes, and what was said."""
    said = "".join(process.communicate(timeout=180)[0] for process in processes)
    return [process.returncode for process in processes], said


@pytest.mark.parametrize(("stage", "made"), [("tokenize", "tokens"), ("sample", "samples"), ("reference", "reference")])
def test_two_machines_make_the_bytes_of_one(copy: Path, finished: Path, stage: str, made: str) -> None:
    shutil.rmtree(copy / "data" / made)
    codes, said = ended(machines(copy, stage))
    assert codes == [0, 0], said
    one, two = ({path.name: sha256(path) for path in (folder / "data" / made).iterdir()} for folder in (finished, copy))
    assert one == two


def test_a_training_that_two_machines_began_goes_on_on_one(copy: Path) -> None:
    """torchrun ends with 1 and not with 130, which DVC takes for a failure all the same."""
    write_params(
        copy,
        merge(
            TINY,
            {"train_steps": 600, "network": {"dropout": 0.0}, "train": {"save_every": 3, "log_every": 200}},
        ),
    )
    running = machines(copy, "train")
    wait_for_state(copy, running[0])
    for process in running:
        process.send_signal(signal.SIGTERM)
    codes, said = ended(running)
    assert codes == [1, 1], said
    assert "state saved: the same command goes on" in said
    finish(copy, "train")
    assert curves(copy)["step"] == [200, 400, 600]
    assert not list(copy.glob(".state/train/*/[0-9]*.pt"))
