"""The precision of matrix products and convolutions: float32, TF32 or bf16.

float32 keeps 23 bits of a number's fraction, TF32 10 and bf16 7. TF32 rounds the inputs of products on tensor cores and
accumulates in float32; only NVIDIA's GPUs from Ampere on have it, elsewhere it is float32. bf16 is torch.autocast:
products have bf16 inputs and outputs; large sums, operations that need range, and the weights stay float32.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

FLOAT32, TF32, BF16 = PRECISIONS = "float32", "tf32", "bf16"


@contextmanager
def computing(precision: str, device: torch.device | str) -> Iterator[None]:
    """Context or decorator in which products on `device` have `precision`, whatever is set outside.

    TF32 is a setting of the whole process: in other threads, too, float32 products have what was entered last.
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
    """Context or decorator without TF32 on CUDA: cuDNN uses it by default, and its 10 bits change nearest codes."""
    with _tf32(False):
        yield


@contextmanager
def deterministic() -> Iterator[None]:
    """Context in which cuDNN uses the same kernel at every call, one that sums in a fixed order."""
    backend: Any = torch.backends.cudnn
    before = backend.deterministic, backend.benchmark
    try:
        backend.deterministic, backend.benchmark = True, False
        yield
    finally:
        backend.deterministic, backend.benchmark = before


def switches() -> list[tuple[Any, str]]:
    """(backend, attribute) of each setting of whether CUDA may use TF32.

    PyTorch from 2.9 on has `fp32_precision` for each operation, and fails if it is mixed with the older `allow_tf32`.
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
