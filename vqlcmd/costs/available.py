"""The free memory of a machine, and a one-line error if so many images at once would take more."""

import os

import torch

from vqlcmd.runtime.errors import ConfigError

FLOAT = 4
"""Bytes of a float32 number."""


def free_memory(device: torch.device) -> int:
    """Bytes that a process of this stage may still take: the GPU's, or its share of memory and swap."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    free = psutil.virtual_memory().available + psutil.swap_memory().free
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def require_images(what: str, knob: str, fixed: int, each: int, images: int, device: torch.device) -> None:
    """Raises ConfigError if `fixed` bytes, and `each` for every one of `images` at once, are more than is free.

    `what` takes the memory, and `knob` is the parameter to lower.
    """
    free = free_memory(device)
    if fixed + images * each <= free:
        return
    fitting = max(free - fixed, 0) // max(each, 1)
    remedy = f"set {knob} to {fitting:,} or less" if fitting else "it needs a machine with more, or a smaller network"
    beside = f"{gigabytes(fixed)}, and " if fixed else ""
    raise ConfigError(
        f"{what} takes at least {gigabytes(fixed + images * each)}: {beside}{gigabytes(each)} for each of {images:,} "
        f"at once; {gigabytes(free)} are free: {remedy}"
    )


def gigabytes(count: float) -> str:
    """A number of bytes in GB, with three digits."""
    return f"{count / 1e9:,.3g} GB" if count < 1e12 else f"{count / 1e9:,.0f} GB"
