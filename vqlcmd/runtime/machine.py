"""What a machine can be asked for and changes no result beyond rounding: glibc keeps freed pages; compilation."""

import ctypes
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

import torch

from vqlcmd.runtime import paths

INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"
"""PyTorch's variable, read when it compiles."""
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


def compiled(function: Callable[..., Any], *, cuda_graphs: bool = False) -> Callable[..., Any]:
    """`function` by torch.compile, once for all shapes; itself, with a line that says so, where no compiler is found.

    Compilation takes place at the first call, and is kept in a folder for later processes: `paths.compiled_code`.
    `cuda_graphs`: on a GPU all kernels of a call start at once, and each shape is compiled apart.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), "g++")
    if shutil.which(compiler) is None:
        print(f"nothing is compiled: {compiler}, a compiler of C++, is not installed", file=sys.stderr)
        return function
    folder = paths.compiled_code()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    # Else PyTorch's own, below the folder of temporary files.
    if os.access(folder, os.W_OK):
        os.environ.setdefault(INDUCTOR, str(folder))
    return torch.compile(function, mode="reduce-overhead" if cuda_graphs else "default", dynamic=not cuda_graphs)
