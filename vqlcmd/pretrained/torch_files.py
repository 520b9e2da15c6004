"""Files written by torch.save, zipped (since PyTorch 1.6) or not: a pickle, and the numbers that it refers to."""

import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from vqlcmd.pretrained.pickles import Storage, Unpickler, View
from vqlcmd.runtime.errors import DataError, shown

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DIRECTORY_BYTES = 16 * 2**20
"""The largest table of contents of a zip: some 200,000 entries, one for each tensor."""

SHARED = 4
"""How often, on average, a number in the file may appear in tensors: a few of them are tied, or transposed."""


class Pickled(NamedTuple):
    """A file's content, as dicts and lists with a View for each tensor, and a function that reads views by name."""

    tree: Any
    read: Callable[[Mapping[str, View]], dict[str, Tensor]]


def read_pickled(path: Path) -> Pickled:
    """Reads a file by torch.save, zipped or not. Raises DataError if it is damaged, or asks for more than data."""
    try:
        return _zipped(path) if zipfile.is_zipfile(path) else _legacy(path)
    except DataError:
        raise
    except Exception as error:  # Damaged pickles raise nearly anything.
        reason = shown(f"{type(error).__name__} {error}")
        raise DataError(f"{path} is damaged, or no file of PyTorch ({reason}): download it again") from None


def _zipped(path: Path) -> Pickled:
    _raise_if_crowded(path)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            inside = shown(", ".join([name for name in names if not name.endswith("/")][:3]))
            raise DataError(f"{path} is an archive of {inside}: unpack it, and name the checkpoint inside")
        root = roots[0]
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise DataError(f"{path} is compressed, which torch.save never does: get the file as its authors wrote it")
        if f"{root}constants.pkl" in names:
            raise DataError(f"{path} is a TorchScript program: name a checkpoint, which holds weights alone")
        if f"{root}byteorder" in names:
            with archive.open(f"{root}byteorder") as file:
                if file.read(16) != b"little":
                    raise DataError(
                        f"{path} was written on a big-endian machine: load and save it again on a common one"
                    )
        with archive.open(f"{root}data.pkl") as file:
            tree = Unpickler(file, path).load()

    def numbers(storage: Storage) -> bytes:
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"{root}data/{storage.key}")

    return Pickled(tree, _reader(path, numbers))


def _raise_if_crowded(path: Path) -> None:
    """Raises DataError if the table of contents is large: Python makes objects of all of it before anything else."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2**16 - 2**10))
        end = file.read()
        found = end.rfind(b"PK\5\6")
        directory = int.from_bytes(end[found + 12 : found + 16], "little")
        if directory == 2**32 - 1:  # Too large for four bytes: a larger record (ZIP64) precedes this one.
            found = end.rfind(b"PK\6\6", 0, found)
            directory = int.from_bytes(end[found + 40 : found + 48], "little") if found >= 0 else size
    if directory > DIRECTORY_BYTES:
        raise DataError(f"{path} has a table of contents of {directory} bytes: download it again")


def _legacy(path: Path) -> Pickled:
    """Pickles in a row: a magic number, a version, the machine, the tree, the storages' keys; then the storages."""
    starts: dict[str, int] = {}
    with path.open("rb") as file:
        if Unpickler(file, path).load() != LEGACY_MAGIC:
            raise DataError(f"{path} is a pickle, but not by torch.save: name a checkpoint with tensors")
        for _ in range(2):
            Unpickler(file, path).load()
        unpickler = Unpickler(file, path)
        tree = unpickler.load()
        for key in Unpickler(file, path).load():
            storage = unpickler.storages[key]
            (elements,) = struct.unpack("<q", file.read(8))
            if elements != storage.elements:
                raise pickle.UnpicklingError(f"storage {key} of another size")
            starts[key] = file.tell()
            file.seek(elements * storage.dtype.itemsize, 1)

    def numbers(storage: Storage) -> bytes:
        with path.open("rb") as file:
            file.seek(starts[storage.key])
            return _read_whole(file, storage.elements * storage.dtype.itemsize)

    return Pickled(tree, _reader(path, numbers))


def _read_whole(file: IO[bytes], size: int) -> bytes:
    """`size` bytes, or fewer if the file ends: reading a false size at once would allocate that much memory."""
    here = file.tell()
    left = file.seek(0, os.SEEK_END) - here
    file.seek(here)
    return file.read(min(size, left))


def _tensor(view: View, data: bytes) -> Tensor:
    size = view.storage.elements * view.storage.dtype.itemsize
    if len(data) != size:
        raise EOFError(f"{len(data)} of {size} bytes")
    if not size:
        return torch.empty(view.shape, dtype=view.storage.dtype)
    numbers = torch.frombuffer(bytearray(data), dtype=view.storage.dtype)
    return numbers.as_strided(view.shape, view.stride, view.offset).clone(memory_format=torch.contiguous_format)


def _reader(path: Path, numbers: Callable[[Storage], bytes]) -> Callable[..., dict[str, Tensor]]:
    """A function from views to tensors.

    It raises DataError if the file is damaged, or if tensors overlap far too much.
    """

    def read(views: Mapping[str, View]) -> dict[str, Tensor]:
        by_storage: dict[Storage, list[str]] = {}
        for name, view in views.items():
            by_storage.setdefault(view.storage, []).append(name)
        wanted = sum(math.prod(view.shape) for view in views.values())
        held = sum(storage.elements for storage in by_storage)
        if wanted > SHARED * held + 2**24:
            raise DataError(f"{path} has {wanted} numbers made of {held}: download it again")
        tensors: dict[str, Tensor] = {}
        try:
            for storage, names in by_storage.items():
                data = numbers(storage)
                tensors |= {name: _tensor(views[name], data) for name in names}
            return tensors
        except Exception as error:  # As above.
            raise DataError(f"{path} is damaged ({shown(error)}): download it again") from None

    return read
