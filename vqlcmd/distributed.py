"""Many processes, or one: helpers that do nothing where there is one."""

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed

from vqlcmd.errors import ConfigError


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
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def stop() -> None:
    """Leave the group."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        distributed.barrier()


def part(size: int) -> slice:
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


def anywhere(flag: bool) -> bool:
    """Whether any process says so."""
    if world() == 1:
        return flag
    seen = torch.tensor(int(flag), device=device())
    distributed.all_reduce(seen, op=distributed.ReduceOp.MAX)
    return bool(seen)
