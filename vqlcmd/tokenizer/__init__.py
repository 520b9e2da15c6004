"""The interface of tokenizers, which map images to discrete tokens and back, and the kinds that there are.

Shapes: B images, C channels, H x W pixels, N = h w tokens on a grid of h x w, K codes, D dimensions of a code.
"""

import importlib
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from vqlcmd.precision import FLOAT32
from vqlcmd.runtime.errors import DataError, shown
from vqlcmd.runtime.safetensors_file import read_about

TOKENIZERS = {"VQGAN": "vqlcmd.tokenizer.vqgan:load"}
"""Maps the kind in a file's header to the function `module:name` that loads the file: (path, device) -> Tokenizer."""


class Tokenizer(Protocol):
    """Maps images in [-1, 1] to tokens on a grid, which need not be square, and back. Frozen."""

    @property
    def codes(self) -> int:
        """K: tokens are 0 to K - 1."""
        ...

    @property
    def codebook(self) -> Tensor | None:
        """The vector of each code [K, D]; None where codes have none."""
        ...

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the token grid of a height x width image. ConfigError for a size that does not fit."""
        ...

    def encode(self, images_BCHW: Tensor, /, *, precision: str = FLOAT32) -> Tensor:
        """Tokens int64 [B, N] of float32 images in [-1, 1], row by row from the top left."""
        ...

    def decode(self, tokens_BN: Tensor, grid: tuple[int, int], /, *, precision: str = FLOAT32) -> Tensor:
        """Images float32 [B, C, H, W] in [-1, 1] of tokens int64 [B, N] on a grid."""
        ...


def load(path: Path, device: str | torch.device = "cpu") -> Tokenizer:
    """The tokenizer in a file, of the kind that its header names. DataError for a missing file or an unknown kind."""
    if not path.is_file():
        raise DataError(f"{path} is missing: `dvc repro` makes it")
    kind = read_about(path).get("kind")
    if not isinstance(kind, str) or kind not in TOKENIZERS:
        known = ", ".join(TOKENIZERS)
        said = f"is of the kind {shown(kind)!r}" if kind else "does not say what it is"
        raise DataError(f"{path} {said}, and holds no tokenizer of this project ({known}): delete it; `dvc repro`")
    module, _, name = TOKENIZERS[kind].partition(":")
    return getattr(importlib.import_module(module), name)(path, device)


def codebook_table(tokenizer: Tokenizer) -> Tensor:
    """The codebook [K, D] on the CPU, to be saved; [K, 0] for a tokenizer whose codes have no vectors."""
    table = tokenizer.codebook
    return torch.empty(tokenizer.codes, 0) if table is None else table.cpu()
