"""The process of the models, as the page's process sees it: it is started, asked for jobs, and ended."""

import itertools
import multiprocessing
import queue
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from vqlcmd.page.description import Description, named
from vqlcmd.page.messages import LOADING, Answer, Done, Progress, Request, Stop, Value
from vqlcmd.runtime.errors import UserError

SECONDS_BETWEEN_LOOKS = 0.05
"""How long to wait for the models before checking again whether a visitor has pressed Stop."""
SECONDS_TO_END = 5.0


class Models:
    """Asks the process of the models for jobs. A thread sorts the answers by the number of the job."""

    def __init__(self, process: BaseProcess, connection: Connection):
        self._process, self._connection = process, connection
        self._numbers = itertools.count(LOADING + 1)
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._inboxes: dict[int, queue.SimpleQueue[Answer]] = {LOADING: queue.SimpleQueue()}
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def loaded(self) -> dict[str, Description]:
        """The models' descriptions by name, once all are loaded. Raises what loading raised, as `vqlcmd.load` does."""
        (descriptions,) = self._answers(LOADING, lambda: False, lambda done, most: None)
        return descriptions

    def ask(
        self,
        work: str,
        model: str | None = None,
        *,
        stopped: Callable[[], bool] = lambda: False,
        report: Callable[[int, int], None] = lambda done, most: None,
        **values: Any,
    ) -> Generator[Any, None, None]:
        """Yields what a function of `models.works` yields for `values` and a model, or all models if it is None.

        The job ends soon after `stopped` says so or nobody takes what it yields; `report` is called with (steps done,
        most steps). What the job raised is raised here. Raises UserError if the process is gone.
        """
        number = next(self._numbers)
        with self._lock:
            self._raise_if_lost()
            self._inboxes[number] = queue.SimpleQueue()
        self._send(Request(number, work, model, values))
        yield from self._answers(number, stopped, report)

    def close(self) -> None:
        """Kills the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._thread.join(SECONDS_TO_END)
        self._connection.close()

    def _answers(self, number: int, stopped: Callable[[], bool], report: Callable[[int, int], None]) -> Iterator[Any]:
        inbox, ends = self._inboxes[number], False
        try:
            while True:
                if stopped() and not ends:
                    ends = True
                    self._send(Stop(number))
                try:
                    answer = inbox.get(timeout=SECONDS_BETWEEN_LOOKS)
                except queue.Empty:
                    continue
                match answer:
                    case Progress(done=done, most=most):
                        report(done, most)
                    case Value(value=value):
                        yield value
                    case Done(error=error):
                        ends = True
                        if error is not None:
                            raise error
                        return
        finally:
            with self._lock:
                del self._inboxes[number]
            if not ends:
                self._send(Stop(number))

    def _send(self, message: Request | Stop) -> None:
        # If the process is gone, `_receive` tells everybody who waits.
        with self._sending, suppress(OSError):
            self._connection.send(message)

    def _receive(self) -> None:
        try:
            while True:
                answer = self._connection.recv()
                with self._lock:
                    inbox = self._inboxes.get(answer.number)
                if inbox is not None:
                    inbox.put(answer)
        except (EOFError, OSError):
            self._process.join(SECONDS_TO_END)
        with self._lock:
            self._lost = _how_it_ended(self._process.exitcode)
            for number, inbox in self._inboxes.items():
                inbox.put(Done(number, UserError(self._lost)))

    def _raise_if_lost(self) -> None:
        if self._lost is not None:
            raise UserError(self._lost)


@contextmanager
def started(folders: Sequence[str]) -> Iterator[Models]:
    """Yields the models in `folders`, which a new process begins to load; it ends with the block, or with this process.

    Inside, signals that ask this process to end raise KeyboardInterrupt, so that the block's files are removed.
    """
    context: Any = multiprocessing.get_context(_method())
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(ours, theirs, named(folders)), name="models")
    # Ctrl-C reaches all processes of a terminal; the new one ignores it from its start, and this one ends it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)
    theirs.close()
    models = Models(process, ours)
    try:
        with _interrupting():
            yield models
    finally:
        models.close()


@contextmanager
def _interrupting() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP (a closed terminal) act like Ctrl-C, unless they are ignored, as under `nohup`."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {each: signal.getsignal(each) for each in ends if signal.getsignal(each) is not signal.SIG_IGN}
    try:
        for each in before:
            signal.signal(each, interrupt)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _method() -> str:
    """How to start the process: by fork, so that it begins at once, where that is safe, else by spawn."""
    alone = threading.active_count() == 1 and "torch" not in sys.modules
    return "fork" if sys.platform == "linux" and alone else "spawn"


def _run(ours: Connection, theirs: Connection, folders: Mapping[str, str]) -> None:
    """What the new process runs."""
    # With a copy of the page's end, this process would not notice that the page is gone.
    ours.close()
    from vqlcmd.page.models.worker import run

    run(theirs, folders)


def _how_it_ended(code: int | None) -> str:
    how = f"exit code {code}" if code is None or code >= 0 else f"signal {-code}, {signal.strsignal(-code)}"
    return (
        f"the process that holds the models has ended ({how}), mostly for want of memory: close other programs or ask"
        " for less at once, and start `vqlcmd page` again"
    )
