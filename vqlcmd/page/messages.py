"""What the page's process and that of the models send to each other. All of it is pickled, and none needs PyTorch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LOADING = 0
"""The number of the first piece of work, which nobody asks for: its one value is the models' descriptions."""


@dataclass(frozen=True)
class Request:
    """A piece of work by its name, with `model` alone or with all models; numbers count up from 1."""

    number: int
    work: str
    model: str | None
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Stop:
    """The work is to end, whether it waits or runs."""

    number: int


@dataclass(frozen=True)
class Progress:
    """Of the work, `done` of at most `most` steps are done."""

    number: int
    done: int
    most: int


@dataclass(frozen=True)
class Value:
    """What the work has come to so far."""

    number: int
    value: Any


@dataclass(frozen=True)
class Done:
    """The work is over, by `error` or, where it is None, well."""

    number: int
    error: Exception | None = None


Answer = Progress | Value | Done
