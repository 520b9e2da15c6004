"""What a machine can be asked for and changes no result beyond rounding: glibc keeps freed pages; compilation."""

import ctypes
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def disable_malloc_trim() -> None:
    """Let this process keep what it frees, where it has glibc: pages that go back to the kernel come back as faults.

    By default every large tensor is such a case. The process holds on to the most that it ever took.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)


def autocast(device: str, *, enabled: bool) -> AbstractContextManager[Any]:
    """torch.autocast, or nothing on the meta device, which has none: nothing is computed there."""
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=enabled)


def compiled(function: Callable[..., Any], mode: str = "default") -> Callable[..., Any]:
    """`function` by torch.compile, once for each shape; itself, with a line that says so, where no compiler is found.

    Compilation takes place at the first call. `mode`: torch.compile's; "reduce-overhead" makes CUDA graphs on a GPU.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), "g++")
    if shutil.which(compiler) is None:
        print(f"nothing is compiled: {compiler}, a compiler of C++, is not installed", file=sys.stderr)
        return function
    return torch.compile(function, mode=mode, dynamic=False)
