"""Tensors in one safetensors file, whose header says what they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vqlcmd.runtime.artefacts.json_file import parse_json
from vqlcmd.runtime.errors import DataError, shown
from vqlcmd.runtime.files import atomic_write

HEADER_BYTES = 4 * 2**20
"""The largest header: some 30,000 tensors. The format allows 100 MB, which takes a minute and gigabytes to parse."""


def save_weights(path: Path, kind: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Writes tensors, their `kind` and `about`, whole or not at all; equal input gives equal bytes."""
    # A single key, since safetensors writes several in an order that changes from run to run.
    metadata = {"about": json.dumps({"kind": kind, **about}, sort_keys=True)}
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as side:
        side.write_bytes(save(held, metadata))


def load_weights(path: Path, kind: str, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and `about` of a file by save_weights. DataError if it is missing, damaged or of another kind."""
    remedy = "`dvc repro` makes it"
    if not path.is_file():
        raise DataError(f"{path} is missing: {remedy}")
    about = read_about(path)
    try:
        tensors = load_file(path, device=str(device))
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{path} is damaged ({shown(error)}): delete it; {remedy}") from None
    if about.pop("kind", None) != kind:
        raise DataError(f"{path} holds no {kind} of this project: delete it; {remedy}")
    return tensors, about


def read_header(path: Path) -> dict[str, Any]:
    """What a safetensors file declares, unchecked: {name: {dtype, shape, data_offsets}}.

    Raises DataError if the file has no such header.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_BYTES:
            raise DataError(f"{path} declares a header of {length} bytes, above {HEADER_BYTES}: download it again")
        text = file.read(length)
    header = parse_json(text, f"{path} is damaged: its header", "download it again")
    if not isinstance(header, dict):
        raise DataError(f"{path} is damaged (its header is no object): download it again")
    return header


def read_about(path: Path) -> dict[str, Any]:
    """What save_weights wrote beside the tensors; empty for files of others.

    Raises DataError if the file is damaged.
    """
    metadata = read_header(path).get("__metadata__", {})
    text = metadata.get("about", "{}") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{path} is damaged (its header is of another kind): download it again")
    about = parse_json(text, f"{path} is damaged: its header", "download it again")
    return about if isinstance(about, dict) else {}
