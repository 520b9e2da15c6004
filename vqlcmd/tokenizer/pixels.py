"""Conversion of pixels between uint8 and float."""

import torch
from torch import Tensor


def to_float(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1."""
    return pixels.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float -1..1 to the nearest uint8; values outside are clamped. Truncation would darken by half a grey level."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
