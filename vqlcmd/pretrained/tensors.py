"""The named tensors of somebody else's file: shapes at once, numbers when asked for, nothing of it run."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vqlcmd.pretrained.pickles import View, read_pickled
from vqlcmd.runtime.errors import DataError

PARTS = ("state_dict", "ema", "model")
"""Where checkpoints keep the weights, if not at the top. An average comes before what it is an average of."""
NO_WEIGHTS = {
    b"version https://git-lfs": "a pointer of Git LFS: `git lfs pull` fetches the file itself",
    b"<": "a web page: download the file itself",
    b"{": "JSON: name the file of weights beside it",
}


class Tensors(NamedTuple):
    """What a file holds by name, and a function that reads some of it as float32."""

    shapes: dict[str, tuple[int, ...]]
    read: Callable[[Collection[str]], dict[str, Tensor]]


def read_tensors(path: Path) -> Tensors:
    """Tensors of a .safetensors file or of one by torch.save. DataError where it is neither, damaged or suspicious."""
    found = _read(path)
    if not all(name.isprintable() for name in found.shapes):
        raise DataError(f"{path} holds tensors whose names cannot be printed: get it again")
    return found


def _read(path: Path) -> Tensors:
    with path.open("rb") as file:
        start = file.read(64)
    # Eight bytes of length and JSON: before all else, since a length can look like anything.
    if start[8:9] == b"{":
        return _safetensors(path)
    for beginning, what in NO_WEIGHTS.items():
        if start.lstrip().startswith(beginning):
            raise DataError(f"{path} is {what}")
    tree, read = read_pickled(path)
    views = _views(tree)
    if not views:
        raise DataError(f"{path} holds no tensors by name: name a checkpoint with a state_dict, not a pickled module")

    def chosen(names: Collection[str]) -> dict[str, Tensor]:
        return {name: tensor.float() for name, tensor in read({name: views[name] for name in names}).items()}

    return Tensors({name: view.shape for name, view in views.items()}, chosen)


def about(path: Path) -> dict[str, str]:
    """The header of a .safetensors file; empty for other files."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _views(tree: Any) -> dict[str, View]:
    """The tensors of the first of PARTS that has any, else those at the top."""
    parts = [tree.get(part) for part in PARTS] if isinstance(tree, Mapping) else []
    for part in (*parts, tree):
        if isinstance(part, Mapping):
            found = {str(name): value for name, value in part.items() if isinstance(value, View)}
            if found:
                return found
    return {}


def _safetensors(path: Path) -> Tensors:
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged ({' '.join(str(error).split())[:120]}): get it again") from None

    def chosen(names: Collection[str]) -> dict[str, Tensor]:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name).to(torch.float32) for name in names}

    return Tensors(shapes, chosen)
