"""Tokens -> pictures, by the tokenizer in data/: samples with classes in columns, and reconstructions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqlcmd import figures
from vqlcmd import tokenizer as tokenizers
from vqlcmd.live import columns
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.distributed import device
from vqlcmd.tokenizer import Tokenizer
from vqlcmd.tokenizer.pixels import to_float, to_uint8
from vqlcmd.tokens import shards
from vqlcmd.tokens.header import grid_of

BATCH = 16
"""Images that are decoded at once."""


@torch.no_grad()
def draw(tokens_BN: Tensor, labels: Tensor | None, header: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG of the samples, like metrics/grid.png. `header` is that of the training tokens.

    Raises DataError if data/vqgan.safetensors is missing, or is not the tokenizer of the tokens.
    """
    names = header["classes"]
    captions = None if labels is None else [names[label] for label in labels.tolist()]
    images = _decoded(_tokenizer(header), tokens_BN, header)
    figures.image_grid(images, columns(len(names) if labels is not None else 0), path, captions)


@torch.no_grad()
def reconstructions(header: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG of images above their reconstructions, like metrics/reconstructions.png. DataError as above."""
    tokenizer = _tokenizer(header)
    images, labels = shards.read_previews(paths.TOKENS)
    tokens_BN = torch.cat([tokenizer.encode(to_float(part.to(device()))) for part in images.split(BATCH)])
    captions = [header["classes"][label] for label in labels.tolist()] * 2 if header["classes"] else None
    figures.image_grid(torch.cat([images, _decoded(tokenizer, tokens_BN, header)]), max(len(images), 1), path, captions)


def _tokenizer(header: Mapping[str, Any]) -> Tokenizer:
    tokenizer = tokenizers.load(paths.VQGAN, device())
    belongs.check_belong(belongs.tokenizer(paths.VQGAN), belongs.tokens(paths.TOKENS, header))
    return tokenizer


def _decoded(tokenizer: Tokenizer, tokens_BN: Tensor, header: Mapping[str, Any]) -> Tensor:
    grid = grid_of(header, paths.TOKENS)
    parts = [to_uint8(tokenizer.decode(part.long().to(device()), grid)).cpu() for part in tokens_BN.split(BATCH)]
    return torch.cat(parts)
