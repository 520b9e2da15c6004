"""Helpers for several processes, which do nothing if there is only one."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from vqlcmd.runtime.errors import ConfigError

T = TypeVar("T")


def rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def device() -> torch.device:
    """This process's GPU if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def start() -> None:
    """Joins the process group that torchrun's variables describe; does nothing for a single process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if torch.cuda.is_available():
            torch.cuda.set_device(device())
        # Tensors on GPUs go through NCCL, and what process 0 collects goes through gloo.
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    """Leaves the process group."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def barrier() -> None:
    """Waits for all processes."""
    if world() > 1:
        distributed.barrier()


def rank_slice(size: int) -> slice:
    """The rows of a batch of `size` that belong to this process. Raises ConfigError if it cannot be split evenly."""
    if size % world():
        raise ConfigError(f"train.batch_size {size} must be a multiple of the {world()} processes: change one of them")
    return slice(size // world() * rank(), size // world() * (rank() + 1))


def average(values: Iterable[Tensor]) -> None:
    """Replaces each of a few small tensors by its mean over processes, in one message, added in the order of ranks.

    So a value does not depend on the tensors that are sent with it, as it would with the partial sums of a ring.
    """
    if world() > 1:
        values = list(values)
        flat = torch.cat([value.flatten() for value in values])
        everyone = [torch.empty_like(flat) for _ in range(world())]
        distributed.all_gather(everyone, flat)
        mean = torch.stack(everyone).sum(dim=0) / world()
        for value, part in zip(values, mean.split([value.numel() for value in values]), strict=True):
            value.copy_(part.view_as(value))


def data_parallel(module: nn.Module, *, accumulates: bool) -> nn.Module:
    """`module`, whose `backward` averages gradients over processes while it runs; the same module for one process.

    `accumulates`: whether a step has several backward passes, all but the last under `local_gradients`.
    """
    if world() == 1:
        return module
    with warnings.catch_warnings():
        # Newer versions of PyTorch warn that this option has a new name, which older versions do not know.
        warnings.simplefilter("ignore", FutureWarning)
        # A static graph loses gradients under no_sync: PyTorch's pull request 187732. Buffers are left to the module.
        return nn.parallel.DistributedDataParallel(
            module, broadcast_buffers=False, gradient_as_bucket_view=True, static_graph=not accumulates
        )


def local_gradients(module: nn.Module) -> AbstractContextManager[None]:
    """Inside, gradients add up on each process, and a later `backward` sends them."""
    return module.no_sync() if isinstance(module, nn.parallel.DistributedDataParallel) else nullcontext()


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true on any process."""
    if world() == 1:
        return flag
    seen = torch.tensor(int(flag), device=device())
    distributed.all_reduce(seen, op=distributed.ReduceOp.MAX)
    return bool(seen)


def any_rank_later(ask: Callable[[], bool]) -> Callable[[], bool]:
    """Like `any_rank` for `ask()`, but returns at once, with a function that gives the answer.

    The processes are asked now, and answer while their devices work.
    """
    if world() == 1:
        return ask
    # On the CPU, so that neither the question nor the answer waits for a GPU.
    seen = torch.tensor(int(ask()))
    sent = distributed.all_reduce(seen, op=distributed.ReduceOp.MAX, async_op=True)

    def answer() -> bool:
        if sent is not None:
            sent.wait()
        return bool(seen)

    return answer


def broadcast_object(value: T) -> T:
    """The `value` of process 0, on every process."""
    if world() == 1:
        return value
    held = [value]
    distributed.broadcast_object_list(held, device=torch.device("cpu"))
    return held[0]


def gather(value: T) -> list[T]:
    """The values of all processes in the order of ranks, on process 0; an empty list on the others."""
    if world() == 1:
        return [value]
    everyone: list[T] = [value] * world()
    distributed.gather_object(value, everyone if rank() == 0 else None)
    return everyone if rank() == 0 else []


def in_order(parts: Iterator[T], total: int) -> Iterator[list[T]]:
    """Yields `total` pieces of work in order on process 0, W at a time; process r of W does numbers r, r + W, ...

    `parts` yields this process's pieces, one by one. The other processes get empty lists.
    """
    for first in range(0, total, world()):
        mine = [next(parts)] if first + rank() < total else []
        if world() == 1:
            yield mine
            continue
        yield [part for each in gather(mine) for part in each]
