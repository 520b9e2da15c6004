"""Messages between the page's process and that of the models. All are pickled, and none needs PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOADING = 0
"""The number of the first job, which nobody asks for: its one value is the models' descriptions."""


@dataclass(frozen=True)
class Request:
    """A job by its name, with one `model`, or with all if it is None; numbers count up from 1."""

    number: int
    work: str
    model: str | None
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Stop:
    """The job is to end, whether it waits or runs."""

    number: int


@dataclass(frozen=True)
class Progress:
    """`done` of at most `most` steps of the job are done."""

    number: int
    done: int
    most: int


@dataclass(frozen=True)
class Value:
    """What the job has yielded."""

    number: int
    value: Any


@dataclass(frozen=True)
class Done:
    """The job is over; it failed with `error`, or ended well if that is None."""

    number: int
    error: Exception | None = None


Answer = Progress | Value | Done
