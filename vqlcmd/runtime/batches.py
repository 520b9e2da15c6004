"""One loop for the stages that work through images: split among processes, collected by the first, resumable."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from vqlcmd.runtime import launcher
from vqlcmd.runtime.distributed import any_rank, broadcast_object, gather, in_order, rank, world
from vqlcmd.runtime.errors import Interrupted
from vqlcmd.runtime.progress import Progress
from vqlcmd.runtime.resume import State

T = TypeVar("T", contravariant=True)
U = TypeVar("U")


class Collector(Protocol[T]):
    """What process 0 does with the batches, which it receives in order."""

    seconds_between_saves: float

    def add(self, piece: T) -> None:
        """Takes the next batch."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that was taken so far."""
        ...

    def load_state_dict(self, saved: dict[str, Any]) -> bool:
        """Goes on from a saved state; returns False, with nothing taken over, if that is impossible."""
        ...

    def wants_saving(self, finished: bool) -> bool:
        """Whether to save now, regardless of the time. `finished`: this was the last batch."""
        ...


class Local(Protocol):
    """What every process keeps of its own batches, and sends to process 0 only when a state is saved."""

    def state_dict(self) -> Any:
        """Everything that was kept so far."""
        ...

    def load_state_dict(self, saved: list[Any]) -> None:
        """Goes on from what each process of the stopped run had kept, however many processes there were."""


def collect(
    title: str,
    total: int,
    each: int,
    pieces: Callable[[int], Iterator[U]],
    collector: Collector[U],
    state: State,
    local: Local | None = None,
    unit: str = "images",
) -> None:
    """Works through 0 .. total - 1 of `unit` in batches of `each`, from the start or from where the same run stopped.

    `pieces(first)` yields this process's batches of the units from `first` on: batches r, r + W, ... for process r of
    W. It may leave in `local` what process 0 need not see of each. Raises Interrupted once a stop was asked for and the
    state is saved.
    """
    saved = state.load() if rank() == 0 else None
    if saved and local is not None and "local" not in saved:
        saved = None  # saved by a version in which process 0 kept everything
    done = broadcast_object(saved["done"] if saved and collector.load_state_dict(saved["collected"]) else 0)
    if local is not None and done:
        local.load_state_dict(broadcast_object(saved["local"] if saved else []))
    saved_at = time.monotonic()
    with launcher.graceful() as stop, Progress(title, total, unit=unit, quiet=rank() > 0) as progress:
        if done and rank() == 0:
            print(f"{title}: goes on after {done} of {total} {unit}", flush=True)
        for gathered in in_order(pieces(done), -(-(total - done) // each)):
            for piece in gathered:
                collector.add(piece)
            before, done = done, min(done + each * world(), total)
            progress.update(done, done - before)
            stopping = any_rank(stop()) and done < total
            late = time.monotonic() - saved_at > collector.seconds_between_saves
            saving = rank() == 0 and (stopping or late or collector.wants_saving(done == total))
            kept = []
            if local is not None and (saving := any_rank(saving)):
                kept = gather(local.state_dict())
            if rank() == 0 and saving:
                state.save({"done": done, "collected": collector.state_dict(), "local": kept})
                saved_at = time.monotonic()
            if stopping:
                raise Interrupted(f"stopped after {done} of {total} {unit}; the same command goes on from there")
