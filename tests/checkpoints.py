"""A small tokenizer as a file of taming-transformers', and the check that a file is refused in one line."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tokenizers import SMALL, seeded
from vqlcmd.pretrained import convert
from vqlcmd.runtime.errors import UserError


def tamings(folder: Path, tensors: dict[str, Tensor] | None = None) -> Path:
    """The small VQGAN's file, or that of other tensors."""
    path = folder / "ckpts" / "last.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": seeded(SMALL).state_dict() if tensors is None else tensors}, path)
    return path


def refused(error: type[UserError], path: Path, *pieces: str, **options: Any) -> None:
    with pytest.raises(error) as caught:
        convert.read(path, **options)
    line = str(caught.value)
    assert "\n" not in line
    for piece in (path.name, *pieces):
        assert piece in line, line
