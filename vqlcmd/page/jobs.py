"""Who has asked for something, and who has pressed Stop."""

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
        """A visitor has asked for something; what they stopped before is forgotten."""
        self._stops[session] = threading.Event()

    def stop(self, session: str) -> None:
        """The visitor has pressed Stop."""
        if session in self._stops:
            self._stops[session].set()

    def leave(self, session: str) -> None:
        """The visitor has closed the page, which stops what runs for nobody."""
        self.stop(session)
        self._stops.pop(session, None)

    def stopped(self, session: str) -> Callable[[], bool]:
        """Tells whether the visitor's job is to end. Stopped where that was so before it began."""
        stop = self._stops.get(session)
        if stop is None or stop.is_set():
            raise Stopped("stopped before it began")
        return stop.is_set
