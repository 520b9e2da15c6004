"""Many processes, or one: helpers that do nothing where there is one."""

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, distributed

from vqlcmd.runtime.errors import ConfigError

T = TypeVar("T")


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def device() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def start() -> None:
    """Join the group that the environment describes (torchrun's variables); nothing to do for one process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if torch.cuda.is_available():
            torch.cuda.set_device(device())
        # Tensors of a GPU go through NCCL, what process 0 collects through gloo.
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    """Leave the group."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        distributed.barrier()


def rank_slice(size: int) -> slice:
    """The rows of a batch of `size` that are this process's. ConfigError when it cannot be shared out evenly."""
    if size % world():
        raise ConfigError(f"train.batch_size {size} must be a multiple of the {world()} processes: change one of them")
    return slice(size // world() * rank(), size // world() * (rank() + 1))


def average(values: Iterable[Tensor]) -> None:
    """Replace each tensor by its mean over processes, in one message."""
    if world() > 1:
        values = list(values)
        flat = torch.cat([value.flatten() for value in values])
        distributed.all_reduce(flat)
        flat /= world()
        for value, mean in zip(values, flat.split([value.numel() for value in values]), strict=True):
            value.copy_(mean.view_as(value))


def any_rank(flag: bool) -> bool:
    """Whether any process says so."""
    if world() == 1:
        return flag
    seen = torch.tensor(int(flag), device=device())
    distributed.all_reduce(seen, op=distributed.ReduceOp.MAX)
    return bool(seen)


def broadcast_object(value: T) -> T:
    """What process 0 has, on every process."""
    if world() == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held, device=torch.device("cpu"))
    return held[0]


def in_order(parts: Iterator[T], total: int) -> Iterator[list[T]]:
    """Of `total` pieces of work, of which process r of W does numbers r, r + W, ...: W at a time, on process 0.

    `parts` makes this process's pieces, one by one. Process 0 gets them by number, the others empty lists.
    """
    for first in range(0, total, world()):
        mine = [next(parts)] if first + rank() < total else []
        if world() == 1:
            yield mine
            continue
        everyone: list[list[T]] = [[] for _ in range(world())]
        distributed.gather_object(mine, everyone if rank() == 0 else None)
        yield [part for each in everyone for part in each]
