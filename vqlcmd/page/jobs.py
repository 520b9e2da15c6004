"""Which visitors have started a job, and which have pressed Stop."""

import threading
from collections.abc import Callable

from vqlcmd.runtime.errors import UserError


class Stopped(UserError):  # noqa: N818  (no error)
    """The visitor has pressed Stop."""


class Jobs:
    """The visitors' jobs, by session: each can be stopped while it waits in the queue and while it runs."""

    def __init__(self) -> None:
        self._stops: dict[str, threading.Event] = {}

    def begin(self, session: str) -> None:
        """Notes that a visitor starts a job; an earlier Stop is forgotten."""
        self._stops[session] = threading.Event()

    def stop(self, session: str) -> None:
        """Notes that the visitor has pressed Stop."""
        if session in self._stops:
            self._stops[session].set()

    def leave(self, session: str) -> None:
        """Stops the job of a visitor who has closed the page, and forgets the visitor."""
        self.stop(session)
        self._stops.pop(session, None)

    def stopped(self, session: str) -> Callable[[], bool]:
        """A function that tells whether the visitor's job is to end.

        Raises Stopped if it was stopped before it began.
        """
        stop = self._stops.get(session)
        if stop is None or stop.is_set():
            raise Stopped("stopped before it began")
        return stop.is_set
