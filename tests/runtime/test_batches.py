"""The loop over images: what a saved state gives back, and one that cannot be gone on from."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from vqlcmd.runtime.batches import collect
from vqlcmd.runtime.resume import State


class Sum:
    """Of the numbers of all batches, where they are collected."""

    seconds_between_saves = 0.0

    def __init__(self) -> None:
        self.total = 0

    def add(self, piece: int) -> None:
        self.total += piece

    def state_dict(self) -> Any:
        return self.total

    def load_state_dict(self, saved: Any) -> bool:
        self.total = saved
        return True

    def wants_saving(self, finished: bool) -> bool:
        return False


class Kept:
    """The sum in the process that made them."""

    def __init__(self) -> None:
        self.total = 0

    def state_dict(self) -> int:
        return self.total

    def load_state_dict(self, saved: list[int]) -> None:
        self.total = sum(saved)


class Memory:
    """A state that was saved, in memory."""

    def __init__(self, saved: dict[str, Any] | None) -> None:
        self.saved = saved

    def load(self) -> dict[str, Any] | None:
        return self.saved

    def save(self, payload: dict[str, Any]) -> None:
        self.saved = payload


@pytest.mark.parametrize(
    ("saved", "asked"),
    [
        (None, 0),
        ({"done": 4, "collected": 6, "local": [6]}, 4),
        # Process 0 had everything, in another shape: of no use to a process that keeps its own.
        ({"done": 4, "collected": 6}, 0),
    ],
)
def test_all_of_the_work_is_counted_once_whatever_state_there_is(saved: dict[str, Any] | None, asked: int) -> None:
    first: list[int] = []
    collected, local = Sum(), Kept()

    def pieces(done: int) -> Iterator[int]:
        first.append(done)
        for start in range(done, 10, 2):
            local.total += sum(range(start, min(start + 2, 10)))
            yield sum(range(start, min(start + 2, 10)))

    collect("numbers", 10, 2, pieces, collected, cast(State, Memory(saved)), local, unit="numbers")
    assert first == [asked]
    assert (collected.total, local.total) == (45, 45)
