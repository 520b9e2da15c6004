"""Samples as tokens -> a picture with classes in columns, by the tokenizer that lies in data/."""

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
from vqlcmd.tokenizer.pixels import to_uint8
from vqlcmd.tokens.header import grid_of

BATCH = 16
"""Images that are decoded at once."""


@torch.no_grad()
def draw(tokens_BN: Tensor, labels: Tensor | None, header: Mapping[str, Any], path: Path) -> None:
    """A PNG of the samples, as metrics/grid.png shows them. `header`: of the training tokens.

    DataError where data/vqgan.safetensors is missing or another than that of the tokens.
    """
    tokenizer = tokenizers.load(paths.VQGAN, device())
    belongs.check_belong(belongs.tokenizer(paths.VQGAN), belongs.tokens(paths.TOKENS, header))
    grid = grid_of(header, paths.TOKENS)
    parts = [to_uint8(tokenizer.decode(part.long().to(device()), grid)).cpu() for part in tokens_BN.split(BATCH)]
    names = header["classes"]
    captions = None if labels is None else [names[label] for label in labels.tolist()]
    figures.image_grid(torch.cat(parts), columns(len(names) if labels is not None else 0), path, captions)
