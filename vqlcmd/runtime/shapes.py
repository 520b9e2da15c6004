"""Builds modules as shapes on PyTorch's meta device, without the imports by which PyTorch infers some shapes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

DRAWS = (Tensor.normal_, nn.init.normal_)
PRODUCTS = (Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
EACH = (torch.exp, Tensor.sin, Tensor.cos)


class _NoNumbers(TorchFunctionMode):
    """Shapes of random normal numbers, products, functions and concatenations of tensors without numbers.

    PyTorch itself uses torch._dynamo and sympy for these shapes, and importing them takes a second. Functions that are
    not listed work as well, but more slowly.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.randn or (func is torch.arange and len(args) == 1 and isinstance(args[0], int)):
            whole = {"dtype": torch.int64} if func is torch.arange else {}
            kwargs.pop("generator", None)
            return torch.empty(*args, **{**whole, **kwargs})
        if func in DRAWS:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func in EACH and args[0].is_meta:
            return torch.empty(args[0].shape, dtype=torch.result_type(args[0], 1.0), device="meta")
        if func in PRODUCTS and args[0].is_meta:
            one, other = args[:2]
            shape = np.broadcast_shapes(one.shape, other.shape if isinstance(other, Tensor) else ())
            return torch.empty(shape, dtype=torch.result_type(one, other), device="meta")
        if func is torch.cat and all(part.is_meta for part in args[0]):
            first, dim = args[0][0], kwargs.get("dim", args[1] if len(args) > 1 else 0)
            shape = list(first.shape)
            shape[dim] = sum(part.shape[dim] for part in args[0])
            return torch.empty(shape, dtype=first.dtype, device="meta")
        return func(*args, **kwargs)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Inside, whatever is built has shapes and no weights."""
    with torch.device("meta"), _NoNumbers():
        yield
