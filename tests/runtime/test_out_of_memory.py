"""A stage that runs out of memory says so in one line, with the knob to turn."""

import errno
import mmap
import os
import subprocess
import sys

import pytest
import torch

from tests.conftest import STAGES
from vqlcmd.runtime import launcher
from vqlcmd.runtime.artefacts.write_errors import one_line


def too_much_for_a_cpu() -> None:
    torch.empty(2**58)


def too_much_for_numpy() -> None:
    import numpy as np

    np.empty(2**58)


def too_much_for_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


def too_much_for_a_mapping() -> None:
    mmap.mmap(-1, 2**62)


def too_much_for_a_child() -> None:
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


def too_much_for_a_child_elsewhere() -> None:
    """The system says it in the language of its user; the number is the same."""
    raise OSError(errno.ENOMEM, "Nicht genügend Hauptspeicher verfügbar")


def too_much_for_a_worker() -> None:
    raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


TOO_MUCH = [
    too_much_for_a_cpu,
    too_much_for_numpy,
    too_much_for_a_gpu,
    too_much_for_a_mapping,
    too_much_for_a_child,
    too_much_for_a_child_elsewhere,
]


@pytest.mark.parametrize("run", TOO_MUCH)
@pytest.mark.parametrize(("stage", "knob"), [("train", "VQLCMD_MICRO_BATCH"), ("sample", "sample.batch_size")])
def test_out_of_memory_is_one_line_that_names_the_knob(
    run: object, stage: str, knob: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launcher.main(stage, run, parallel=False) == 1  # pyright: ignore[reportArgumentType]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"{stage}: out of memory (")
    assert knob in said


def test_a_worker_that_the_kernel_ended_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert launcher.main("tokenize", too_much_for_a_worker, parallel=False) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "mostly for want of memory (DataLoader worker (pid 7) is killed by signal: Killed.)" in said
    assert "VQLCMD_WORKERS=0" in said


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not fit"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Segmentation fault. "),
        OSError("of nobody knows what"),
        OSError(errno.EBADF, os.strerror(errno.EBADF)),
    ],
)
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    def run() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        launcher.main("train", run, parallel=False)
    assert caught.value is error


PIPES = """
import os, resource, sys
from vqlcmd.runtime import launcher
def run():
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
    while True:
        os.pipe()
sys.exit(launcher.main("tokenize", run, parallel=False))
"""


def test_pipes_that_the_system_does_not_open_are_one_line() -> None:
    """They have no names, and their error was a traceback."""
    done = subprocess.run([sys.executable, "-c", PIPES], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("tokenize: too many files are open; raise the limit"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.EAGAIN, "no more processes may be started; set VQLCMD_WORKERS=0, or raise the limit"),
        (errno.ENFILE, "too many files are open on this machine; end other programs"),
        (errno.EMFILE, "too many files are open; raise the limit"),
    ],
)
def test_the_command_line_names_what_the_system_refuses_a_process(number: int, line: str) -> None:
    said = one_line(OSError(number, os.strerror(number)))
    assert said is not None
    assert said.startswith(line)
    assert said.endswith(", then run the same command again")


def test_every_stage_has_a_knob() -> None:
    assert set(STAGES) <= set(launcher.KNOBS)
