"""Tensors in one safetensors file that says what it holds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.files import atomic_write


def save_weights(path: Path, kind: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors, their `kind` and what else there is to say, whole or not at all; equal input, equal bytes."""
    # One key: safetensors writes several in an order that changes from run to run.
    metadata = {"about": json.dumps({"kind": kind, **about}, sort_keys=True)}
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as side:
        side.write_bytes(save(held, metadata))


def load_weights(path: Path, kind: str, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and `about` of a file that save_weights wrote. DataError where it is missing, damaged or another kind."""
    remedy = "`dvc repro` makes it, `dvc pull` fetches it"
    if not path.is_file():
        raise DataError(f"{path} is missing: {remedy}")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
        tensors = load_file(path, device=str(device))
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise DataError(f"{path} is damaged ({error}): delete it; {remedy}") from None
    if about.pop("kind", None) != kind:
        raise DataError(f"{path} holds no {kind} of this project: delete it; {remedy}")
    return tensors, about
