"""The process of the models: loads them, and does one job after the other until the page is gone."""

import gc
import os
import pickle
import queue
import threading
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import vqlcmd
from vqlcmd.generator import Generator
from vqlcmd.page.description import Description
from vqlcmd.page.messages import LOADING, Answer, Done, Progress, Request, Stop, Value
from vqlcmd.page.models.describing import describe
from vqlcmd.page.models.works import WORKS, Asker
from vqlcmd.runtime import launcher
from vqlcmd.runtime.errors import UserError


def run(connection: Connection, folders: Mapping[str, str]) -> None:
    """Loads the models in `folders`, by their names, sends their descriptions, and does the jobs that are asked for.

    Returns only if loading failed; the process ends when the other end of the connection is closed.
    """
    page, models = Page(connection), dict[str, Generator]()
    # The objects that imports and loading create stay, so there is no garbage to look for.
    gc.disable()
    if not page.answer(LOADING, _loaded(folders, models)):
        return
    gc.freeze()
    gc.enable()
    while True:
        request = page.next()
        what = models if request.model is None else models[request.model]
        page.answer(request.number, WORKS[request.work](what, page.asker(request.number), **request.values))


def _loaded(folders: Mapping[str, str], models: dict[str, Generator]) -> Iterator[dict[str, Description]]:
    for name, folder in folders.items():
        models[name] = vqlcmd.load(folder)
    yield {name: describe(model, folders[name]) for name, model in models.items()}


class Page:
    """The other end of the connection. A thread listens to it, since Stop may arrive while a job runs."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._stops: set[int] = set()
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> Request:
        """The next job; waits for it."""
        return self._requests.get()

    def asker(self, number: int) -> Asker:
        """The asker of the job of this number."""
        return Asker(lambda: number in self._stops, lambda done, most: self._send(Progress(number, done, most)))

    def answer(self, number: int, work: Iterator[Any]) -> bool:
        """Sends what the job yields, and how it ended; returns whether it ended well."""
        error = None
        try:
            for value in work:
                self._send(Value(number, value))
        except Exception as raised:
            error = portable(raised)
        self._send(Done(number, error))
        return error is None

    def _send(self, answer: Answer) -> None:
        try:
            self._connection.send(answer)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)

    def _listen(self) -> None:
        try:
            while True:
                match self._connection.recv():
                    case Stop(number=number):
                        self._stops.add(number)
                    case request:
                        self._requests.put(request)
        except (EOFError, OSError):
            os._exit(0)


def portable(error: Exception) -> Exception:
    """The error for another process: a line for user errors and lack of memory, others with their traceback."""
    if isinstance(error, UserError):
        return error
    line = launcher.of_memory(error, "ask for fewer images, or for fewer at once")
    if line is not None:
        return UserError(line)
    error.add_note("".join(traceback.format_exception(error)))
    try:
        return error if isinstance(pickle.loads(pickle.dumps(error)), type(error)) else RuntimeError(str(error))
    except Exception:  # unpickling may raise anything if the error's class takes other arguments
        other = RuntimeError(f"{type(error).__name__}: {error}")
        other.add_note("\n".join(error.__notes__))
        return other
