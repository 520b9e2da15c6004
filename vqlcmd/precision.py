"""How exactly products are computed, of matrices and in convolutions: float32, TF32 or bf16. The one place.

float32 keeps 23 bits of a number's fraction, TF32 10 and bf16 7. TF32 rounds what goes into a product on tensor cores
and adds up in float32; only NVIDIA's GPUs from Ampere on have it, elsewhere it is float32. bf16 is torch.autocast:
products take bf16 and make it, what sums much or needs a range stays float32, and so do the weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

FLOAT32, TF32, BF16 = PRECISIONS = "float32", "tf32", "bf16"


@contextmanager
def computing(precision: str, device: torch.device | str) -> Iterator[None]:
    """Products on a `device` of this type in `precision`, whatever holds outside; decorates functions as well.

    The setting for TF32 is one of the process: another thread's float32 is what was entered last.
    """
    assert precision in PRECISIONS, precision
    kind = torch.device(device).type
    # Only CUDA has TF32, and the meta device no autocast: nothing is computed there.
    products = nullcontext() if kind in ("cpu", "meta") else _tf32(precision == TF32)
    cast = nullcontext() if kind == "meta" else torch.autocast(kind, torch.bfloat16, enabled=precision == BF16)
    with products, cast:
        yield


@contextmanager
def full_precision() -> Iterator[None]:
    """Float32 products as such on CUDA: TF32, which cuDNN takes by default, keeps 10 bits and changes nearest codes."""
    with _tf32(False):
        yield


@contextmanager
def deterministic() -> Iterator[None]:
    """cuDNN with the same kernel at every call, and one that adds up in the same order."""
    backend: Any = torch.backends.cudnn
    before = backend.deterministic, backend.benchmark
    try:
        backend.deterministic, backend.benchmark = True, False
        yield
    finally:
        backend.deterministic, backend.benchmark = before


def switches() -> list[tuple[Any, str]]:
    """(backend, attribute) of each setting that says whether CUDA may take TF32.

    PyTorch from 2.9 on has `fp32_precision` for each operation, and fails on a mixture with the `allow_tf32` of before.
    """
    cudnn: Any = torch.backends.cudnn
    if hasattr(cudnn, "conv"):
        return [(each, "fp32_precision") for each in (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)]
    return [(each, "allow_tf32") for each in (torch.backends.cuda.matmul, cudnn)]


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = [getattr(backend, name) for backend, name in switches()]
    values = {"fp32_precision": ("ieee", "tf32"), "allow_tf32": (False, True)}
    try:
        for backend, name in switches():
            setattr(backend, name, values[name][allowed])
        yield
    finally:
        for (backend, name), value in zip(switches(), before, strict=True):
            setattr(backend, name, value)
