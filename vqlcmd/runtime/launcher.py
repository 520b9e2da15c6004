"""Runs a stage in one process or several: errors in one line, exit codes, interruption, and no orphans.

Exit codes: 0 done, 1 the user's error or a failed worker, 130 interrupted (training and sampling save their state).
"""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from vqlcmd.runtime import paths, pipeline
from vqlcmd.runtime.artefacts import write_errors
from vqlcmd.runtime.errors import Diverged, Interrupted, UserError, message, shown

INTERRUPTED = 130
EXIT_REPORTED = 3
"""The exit code by which a worker tells its launcher that the error has been printed."""
EXIT_PEER_LOST = 4
"""The exit code by which a worker tells its launcher that another worker is gone."""
SECONDS_TO_STOP = 60.0
SECONDS_FOR_THE_FIRST = 2.0
PEER_LOST = re.compile(r"connection (was )?(closed|reset|refused)|broken pipe|nccl.*remote", re.IGNORECASE)
NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|cannot allocate memory", re.IGNORECASE)
"""PyTorch's messages on a GPU, on a CPU, and under Windows."""
WORKER_LOST = re.compile(r"^DataLoader worker \(pid.*(killed by signal: (Killed|Bus error)|exited unexpectedly)")
"""PyTorch's message if the kernel has killed one of its processes, or if shared memory is full."""
KNOBS = {
    "vqgan": "lower vqgan.fit.batch_size, or set VQLCMD_WORKERS=0",
    "tokenize": "lower tokenize.batch_size, or set VQLCMD_WORKERS=0",
    "method": "close other programs: it imports PyTorch and little else",
    "train": "set VQLCMD_MICRO_BATCH to fewer at once, which changes no result, or lower train.batch_size",
    "sample": "lower sample.batch_size",
    "bound": "lower bound.batch_size",
    "reference": "lower reference.batch_size, or set VQLCMD_WORKERS=0",
    "evaluate": "lower evaluate.batch_size or evaluate.precision_images",
    "figures": "give it more memory: it decodes few images at once",
    "text.vocabulary": "give it more memory: it holds one file at a time",
    "text.tokenize": "give it more memory: it holds two bytes a token, and one file",
    "text.reference": "lower reference.proxy.batch_size or reference.batch_size, or leave xz and ppmd out",
    "text.evaluate": "lower sample.count or evaluate.batch_size: copied runs take 1 kB a token of the samples",
}
"""{stage: what to change if it runs out of memory}."""


def main(stage: str, run: Callable[[], None], *, parallel: bool) -> int:
    """Calls `run` of stages/`stage`.py, if `parallel` in as many processes as asked for; returns the exit code.

    A process started by torchrun joins its group; in a stage that is not parallel, process 0 does all the work.
    """
    first = os.environ.get("RANK", "0") == "0"
    try:
        if not parallel:
            return _work(stage, run) if first else 0
        count = _processes()
        if count > 1 and "RANK" not in os.environ:
            return _launch(f"stages.{stage}", count)
        from vqlcmd.runtime import distributed

        distributed.start()
        try:
            return _work(stage, run)
        finally:
            distributed.stop()
    except (UserError, Diverged) as error:
        if not first:
            # Usually all processes see the same error: process 0 prints it, and its end ends the others.
            time.sleep(SECONDS_FOR_THE_FIRST)
        rank = "" if first else f", process {os.environ['RANK']}"
        print(f"{stage}{rank}: {message(error)}", file=sys.stderr)
        return EXIT_REPORTED if "VQLCMD_LAUNCHER" in os.environ else 1
    except (Interrupted, KeyboardInterrupt) as stopped:
        if first:
            print(f"{stage}: {str(stopped) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except (OSError, RuntimeError, MemoryError) as error:
        line = of_memory(error, KNOBS[stage])
        if line is None and isinstance(error, OSError):
            line = write_errors.one_line(error)
        if line is not None:
            print(f"{stage}: {line}", file=sys.stderr)
            return EXIT_REPORTED if "VQLCMD_LAUNCHER" in os.environ else 1
        # gloo and NCCL raise this if another process has died, whose own error says more.
        if "VQLCMD_LAUNCHER" in os.environ and PEER_LOST.search(str(error)):
            return EXIT_PEER_LOST
        raise


def of_memory(error: Exception, remedy: str) -> str | None:
    """What a user reads if memory ran out, whatever the type of the error; None for other errors."""
    without = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    if without or NO_MEMORY.search(str(error)):
        return f"out of memory ({shown(str(error) or type(error).__name__, 200)}); {remedy}"
    if WORKER_LOST.search(str(error)):
        return f"a process that reads images was killed, mostly for want of memory ({shown(error, 200)}); {remedy}"
    return None


def _work(stage: str, run: Callable[[], None]) -> int:
    from vqlcmd.runtime.machine import disable_malloc_trim

    disable_malloc_trim()
    signal.signal(signal.SIGTERM, _raise_interrupt)
    if "VQLCMD_LAUNCHER" in os.environ:
        # The launcher passes a Ctrl-C on as SIGTERM; the terminal's own would come a second time.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    if os.environ.get("RANK", "0") == "0":
        pipeline.forget_later_metrics(stage, Path.cwd())
    run()
    return 0


@contextmanager
def graceful() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether the user has asked to stop; asking again, a second later, stops at once."""
    asked: list[float] = []

    def ask(number: int, frame: FrameType | None) -> None:
        # A batch system signals the whole group, and the launcher passes its own signal on: two for one request.
        if asked and time.monotonic() - asked[0] > 1:
            _raise_interrupt(number, frame)
        asked.append(time.monotonic())

    # If SIGINT is ignored, a launcher handles it and sends SIGTERM.
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _processes() -> int:
    asked = os.environ.get("VQLCMD_NPROC")
    if asked is None:
        import torch

        return max(torch.cuda.device_count(), 1)
    return paths.whole_number("VQLCMD_NPROC", asked, 1, "the processes of a stage")


def _launch(module: str, count: int) -> int:
    """Starts `count` workers, waits for all, and ends the others if one fails; returns the exit code."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "VQLCMD_LAUNCHER": "1",
    }
    shared["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(max((os.cpu_count() or 1) // count, 1))
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", module], env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(count)
    ]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGINT, pass_on)
    signal.signal(signal.SIGTERM, pass_on)
    while True:
        codes = [worker.poll() for worker in workers]
        failed = [code for code in codes if code]
        if failed:
            return _end(workers, module)
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.1)


def _end(workers: list[subprocess.Popen[bytes]], module: str) -> int:
    """Ends all workers after one has failed or was interrupted; returns the exit code.

    After an interruption the others get time to stop by themselves.
    """
    failed = [worker for worker in workers if worker.poll()]
    first = next((worker for worker in failed if worker.returncode != EXIT_PEER_LOST), failed[0])
    interrupted = first.returncode in (INTERRUPTED, -signal.SIGTERM)
    if not interrupted and first.returncode != EXIT_REPORTED:
        rank = workers.index(first)
        print(
            f"{module}: process {rank} of {len(workers)} ended with {first.returncode}; "
            "the others are stopped, and the same command goes on from the last saved state",
            file=sys.stderr,
        )
    deadline = time.monotonic() + (SECONDS_TO_STOP if interrupted else 0)
    while time.monotonic() < deadline and any(worker.poll() is None for worker in workers):
        time.sleep(0.1)
    for worker in workers:
        worker.kill()
        worker.wait()
    return INTERRUPTED if interrupted else 1


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
