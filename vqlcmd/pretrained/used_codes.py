"""A list of the codes in use, or a table with the token of each code, which authors may publish beside a checkpoint."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vqlcmd.pretrained.families import CODEBOOK, PROJECTION
from vqlcmd.pretrained.pickles import View
from vqlcmd.pretrained.torch_files import read_pickled
from vqlcmd.runtime.errors import ConfigError, DataError, shown
from vqlcmd.runtime.paths import experiment_remedy
from vqlcmd.tokenizer.blocks import Architecture
from vqlcmd.tokenizer.vqgan import MERGE
from vqlcmd.tokens.record import parse_npy

BYTES = 2**20
"""The largest such file: 65,536 numbers of 8 bytes take half of it."""
NUMPY = b"\x93NUMPY"
WHOLE = ("<i8", "<i4", "<i2", "|i1", "<u2", "<u4", "<u8", "|u1")
REMEDY = "name a list of used codes or a table of all, or null"

Chosen = tuple[Architecture, dict[str, Tensor]]
"""The architecture and weights of a tokenizer with fewer tokens than the checkpoint has codes."""


def read_codes(path: Path) -> Tensor:
    """The whole numbers in a .npy file, or in a tensor by torch.save: int64 [n]. Nothing in the file is run.

    Raises ConfigError if it is missing, and DataError if it is anything else.
    """
    if not path.is_file():
        raise ConfigError(
            f"vqgan.used_codes is {path}, which is not a file: name one, or null{experiment_remedy(path)}"
        )
    size = path.stat().st_size
    if size > BYTES:
        raise DataError(f"vqgan.used_codes is {path}, of {size} bytes, where {BYTES} are enough: {REMEDY}")
    contents = path.read_bytes()
    values = _numpy(contents, path) if contents.startswith(NUMPY) else _torch(path)
    if values.ndim != 1 or values.is_floating_point() or values.dtype == torch.bool:
        held = f"{str(values.dtype).removeprefix('torch.')} of shape {shown(list(values.shape))}"
        raise DataError(f"vqgan.used_codes is {path}, which holds {held}, not whole numbers in a row: {REMEDY}")
    return values.long()


def chosen(architecture: Architecture, weights: Mapping[str, Tensor], values: Tensor, path: Path) -> Chosen:
    """The tokenizer whose tokens `values` define: a table if there is one for each code, else a list of used codes.

    `path` is the file that `values` come from, for messages.
    """
    place = f"vqgan.used_codes is {path}, which"
    if len(values) == architecture.n_embed:
        return merged(architecture, weights, values, place)
    return listed(architecture, weights, values, place)


def listed(architecture: Architecture, weights: Mapping[str, Tensor], values: Tensor, place: str) -> Chosen:
    """The tokenizer with the codes of a list only, in their order: a latent is quantized to the best of them.

    Raises DataError, which begins with `place`, if `values` are not two or more different codes of the codebook.
    """
    codes = values.long()
    whole = values.ndim == 1 and torch.equal(codes.to(values.dtype), values)
    if (
        not whole
        or not 2 <= len(codes.unique()) == len(codes)
        or codes.min() < 0
        or codes.max() >= architecture.n_embed
    ):
        raise DataError(f"{place} is no list of different codes below {architecture.n_embed}: download the file again")
    names = (CODEBOOK, PROJECTION, PROJECTION.replace("weight", "bias"))
    kept = {name: weights[name][codes] for name in names if name in weights}
    return dataclasses.replace(architecture, n_embed=len(codes)), {**weights, **kept}


def merged(architecture: Architecture, weights: Mapping[str, Tensor], table: Tensor, place: str) -> Chosen:
    """The tokenizer that finds the best of all codes and gives the table's token for it, decoded as its first code.

    Raises DataError, which begins with `place`, if the tokens are not 0, 1, 2, ... without a gap, or as many as codes.
    """
    found = table.unique()
    if len(found) == len(table):
        raise DataError(f"{place} gives each of {len(table)} codes a token of its own: {REMEDY}")
    if len(found) < 2 or not torch.equal(found, torch.arange(len(found))):
        raise DataError(
            f"{place} has {len(table)} numbers from {int(found[0])} to {int(found[-1])}, {len(found)} different ones; "
            f"a table of all codes names tokens from 0 on without a gap, two or more: {REMEDY}"
        )
    variant = dataclasses.replace(architecture.variant, merged=len(found))
    return dataclasses.replace(architecture, variant=variant), {**weights, MERGE: table}


def _numpy(contents: bytes, path: Path) -> Tensor:
    for dtype in WHOLE:
        try:
            values = parse_npy(contents, dtype, (None,), path.name)
        except ValueError:
            continue
        return torch.from_numpy(values.astype("int64"))
    raise DataError(f"vqgan.used_codes is {path}, which is no .npy of whole numbers in a row: {REMEDY}")


def _torch(path: Path) -> Tensor:
    try:
        tree, read = read_pickled(path)
    except DataError as error:
        raise DataError(f"vqgan.used_codes: {error}") from None
    if not isinstance(tree, View):
        raise DataError(f"vqgan.used_codes is {path}, which does not hold a tensor and nothing else: {REMEDY}")
    return read({"codes": tree})["codes"]
