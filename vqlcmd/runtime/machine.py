"""Machine settings that change no result beyond rounding: glibc keeps freed pages; networks are compiled."""

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
"""PyTorch's variable for the folder of compiled code, read when it compiles."""
# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def disable_malloc_trim() -> None:
    """Makes glibc, if there is one, keep freed pages: those returned to the kernel come back as page faults.

    By default, the pages of every large tensor are returned. Now the process keeps the most memory that it ever took.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)


def autocast(device: str, *, enabled: bool) -> AbstractContextManager[Any]:
    """torch.autocast, or a null context on the meta device, which has no autocast because nothing is computed there."""
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=enabled)


def compiled(function: Callable[..., Any], *, cuda_graphs: bool = False) -> Callable[..., Any]:
    """`function` by torch.compile, once for all shapes; itself, with a message, if no C++ compiler is found.

    It is compiled at the first call, and the code is kept for later processes in `paths.compiled_code`. With
    `cuda_graphs`, all kernels of a call on a GPU start at once, and each shape is compiled separately.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++")), "g++")
    if shutil.which(compiler) is None:
        print(f"nothing is compiled: {compiler}, a compiler of C++, is not installed", file=sys.stderr)
        return function
    folder = paths.compiled_code()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    # Otherwise PyTorch uses a folder of its own, below that of temporary files.
    if os.access(folder, os.W_OK):
        os.environ.setdefault(INDUCTOR, str(folder))
    return torch.compile(function, mode="reduce-overhead" if cuda_graphs else "default", dynamic=not cuda_graphs)
