"""Progress for people: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows progress up to `total`; `update` may be called as often as you like. `unit` is that of the rate."""

    def __init__(self, title: str, total: int, *, unit: str = "images", quiet: bool = False):
        self.title, self.total, self.unit, self.quiet = title, total, unit, quiet
        self._started = self._printed = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._seen = 0.0
        self._bar: Bar | None = None
        self._task = None

    def __enter__(self) -> "Progress":
        if not self.quiet and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, TextColumn("{task.fields[figures]}"), console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, figures="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and not self.quiet:
            print(f"{self.title}: {self.total} done in {_clock(time.monotonic() - self._started)}", flush=True)

    def update(self, done: int, more: float = 0, figures: Mapping[str, float] | None = None) -> None:
        """Reports that `done` of `total` are done, `more` units of them since the last call; shows `figures` beside."""
        now = time.monotonic()
        # The first call may report one batch, or all that an interrupted run had done.
        self._first = self._first or (done, now)
        self._seen += more
        rate = self._seen / max(now - self._started, 1e-9)
        text = [f"{name} {value:.4g}" for name, value in (figures or {}).items()]
        text += [f"{rate:.0f} {self.unit}/s"] if self._seen else []
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, figures=" · ".join(text))
        elif not self.quiet and now - self._printed >= SECONDS_BETWEEN_LINES:
            before, then = self._first
            if done > before:
                text.append(f"{_clock((now - then) / (done - before) * (self.total - done))} left")
            print(" · ".join([f"{self.title} {done}/{self.total}", *text]), flush=True)
            self._printed = now


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return (
        f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02}"
    )
