"""The named tensors of a published file: shapes at once, numbers on demand, and nothing in it is run."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vqlcmd.pretrained.pickles import DIMENSIONS, Settings, View, plain
from vqlcmd.pretrained.torch_files import read_pickled
from vqlcmd.runtime.errors import DataError, shown
from vqlcmd.runtime.safetensors_file import read_about, read_header

PARTS = ("state_dict", "ema", "model")
"""Where checkpoints keep the weights, if not at the top. A moving average comes before the weights that it averages."""
NO_WEIGHTS = {
    b"version https://git-lfs": "a pointer of Git LFS: `git lfs pull` fetches the file itself",
    b"<": "a web page: download the file itself",
    b"{": "JSON: name the file of weights beside it",
}


TENSORS = 20_000
"""The most tensors at one level. A diffusion model with its first stage and averages has some 2,000."""
NAME_LENGTH = 200


class Tensors(NamedTuple):
    """The shapes in a file by name, a function that reads tensors as float32, and the settings stored with them."""

    shapes: dict[str, tuple[int, ...]]
    read: Callable[[Collection[str]], dict[str, Tensor]]
    settings: dict[str, Any]


def read_tensors(path: Path) -> Tensors:
    """The tensors of a .safetensors file, or of one by torch.save.

    Raises DataError if the file is neither, damaged or suspicious.
    """
    found = _read(path)
    _raise_if_many(path, len(found.shapes))
    if not all(name.isprintable() and len(name) <= NAME_LENGTH for name in found.shapes):
        raise DataError(f"{path} holds tensors whose names cannot be printed, or not in a line: download it again")
    return found


def _raise_if_many(path: Path, tensors: int) -> None:
    if tensors > TENSORS:
        raise DataError(f"{path} holds {tensors} tensors, above {TENSORS}: name a file with one model")


def _read(path: Path) -> Tensors:
    with path.open("rb") as file:
        start = file.read(64)
    # Eight bytes of length, then JSON: safetensors. Checked first, since a length can look like anything.
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

    return Tensors({name: view.shape for name, view in views.items()}, chosen, _settings(tree))


def about(path: Path) -> dict[str, Any]:
    """The metadata that this project wrote to a .safetensors file; empty for other files."""
    with path.open("rb") as file:
        if file.read(9)[8:] != b"{":
            return {}
    return read_about(path)


def _views(tree: Any) -> dict[str, View]:
    """The tensors in the first of PARTS that has any, else those at the top."""
    parts = [tree.get(part) for part in PARTS] if isinstance(tree, Mapping) else []
    for part in (*parts, tree):
        if isinstance(part, Mapping):
            found = {name: value for name, value in part.items() if isinstance(name, str) and isinstance(value, View)}
            if found:
                return found
    return {}


def _settings(tree: Any) -> dict[str, Any]:
    """The command line of the training run, if the file keeps it under `args`, as those of LlamaGen do."""
    given = tree.get("args") if isinstance(tree, Mapping) else None
    return given.held if isinstance(given, Settings) else plain(given)


def _safetensors(path: Path) -> Tensors:
    header = read_header(path)
    _raise_if_many(path, len(header))
    for name, entry in header.items():
        shape = entry.get("shape") if isinstance(entry, dict) and name != "__metadata__" else ()
        if not isinstance(shape, list | tuple) or len(shape) > DIMENSIONS:
            raise DataError(f"{path} declares {shown(name)} with more than {DIMENSIONS} dimensions: download it again")
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{path} is damaged ({shown(error)}): download it again") from None

    def chosen(names: Collection[str]) -> dict[str, Tensor]:
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name).to(torch.float32) for name in names}
        except (SafetensorError, AttributeError, RuntimeError, TypeError, ValueError, OSError) as error:
            # Among others, types of numbers that PyTorch does not know.
            raise DataError(f"{path} is damaged ({shown(error)}): download it again") from None

    return Tensors(shapes, chosen, {})
