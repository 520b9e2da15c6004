"""Tensors of a file that torch.save wrote, read without running anything that the file asks for.

A pickle is a program: it names functions and has them called. Here every name leads to something of this module, which
does nothing or makes a record, and nothing is ever imported. A name that is not a tensor's, harmless data's or some
package's class is refused at its mention.
"""

import _compat_pickle
import math
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from vqlcmd.runtime.errors import DataError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# Data of the standard library, numpy and torch that checkpoints carry beside their tensors. Stubbed like all the rest.
HARMLESS = {
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple",
    "_codecs": "encode",
    "argparse": "Namespace",
    "collections": "Counter deque",
    "copyreg": "_reconstructor",
    "datetime": "date datetime time timedelta timezone",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "types": "SimpleNamespace",
    "typing": "Any",
    "numpy": "bool_ dtype float16 float32 float64 int32 int64 ndarray",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "torch": "Size bfloat16 bool device float16 float32 float64 int16 int32 int64 int8 uint8",
}


class Storage(NamedTuple):
    """A run of numbers in the file."""

    key: str
    dtype: torch.dtype
    elements: int


class View(NamedTuple):
    """A tensor: where its numbers lie in a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Pickled(NamedTuple):
    """What a file holds, as dicts and lists with a View for each tensor, and a function that reads named views."""

    tree: Any
    read: Callable[[Mapping[str, View]], dict[str, Tensor]]


class _Kind(NamedTuple):
    dtype: torch.dtype


class _Dict(dict[Any, Any]):
    """An OrderedDict or a defaultdict, without the attributes that the file sets on it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(args[0] if args and isinstance(args[0], list | dict) else ())

    def __setstate__(self, state: Any) -> None:
        pass


class _Stub:
    """An object of some class. Takes what the file gives it, and keeps nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Stub":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    extend = add = update = append


class _Call:
    """A function that the file may have called: one of this module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("attributes of a function")


def _view(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> View:
    """`storage[offset:]` as a tensor, once it is sure to lie inside of the storage."""
    if not isinstance(storage, Storage) or not all(type(n) is int and n >= 0 for n in (offset, *shape, *stride)):
        raise pickle.UnpicklingError("a tensor without a storage")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if math.prod(shape) > storage.elements or (math.prod(shape) and last >= storage.elements):
        raise pickle.UnpicklingError("a tensor larger than its storage")
    return View(storage, offset, tuple(shape), tuple(stride))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self.path = path
        self.storages: dict[str, Storage] = {}
        self._names: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor"): _Call(_view),
            ("torch._utils", "_rebuild_tensor_v2"): _Call(_view),
            ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
            ("torch._utils", "_rebuild_parameter_with_state"): _Call(_parameter),
            ("collections", "OrderedDict"): _Dict,
            ("collections", "defaultdict"): _Dict,
            **{("torch", name): _Kind(dtype) for name, dtype in STORAGES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        """What the name stands for here. DataError where it has no business in a file of tensors."""
        if (module, name) not in self._names:
            # Old protocols call the standard library by its names in Python 2.
            place, it = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            place = _compat_pickle.IMPORT_MAPPING.get(place, place)
            harmless = it in HARMLESS.get(place, "").split()
            of_a_package = place.partition(".")[0] not in sys.stdlib_module_names
            if not (harmless or (of_a_package and it.rpartition(".")[2].lstrip("_")[:1].isupper())):
                named = f"{module}.{name}"[:100].encode("unicode_escape").decode()
                rule = "is no tensor and could run code; nothing of it was run"
                raise DataError(
                    f"{self.path} is refused: it names {named}, which {rule}; get it as .safetensors, or not at all"
                )
            self._names[module, name] = type("Stub", (_Stub,), {})
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        """The storage that `pid` tells of."""
        kind, dtype, key, _, elements, *views = pid
        if kind != "storage" or not isinstance(dtype, _Kind) or type(elements) is not int or elements < 0 or any(views):
            raise pickle.UnpicklingError("a storage of an unknown kind")
        storage = Storage(str(key), dtype.dtype, elements)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise pickle.UnpicklingError(f"two storages {storage.key}")
        return storage


def read_pickled(path: Path) -> Pickled:
    """A file by torch.save, zipped (since PyTorch 1.6) or not. DataError where it is damaged, or asks for more."""
    try:
        return _zipped(path) if zipfile.is_zipfile(path) else _legacy(path)
    except DataError:
        raise
    except Exception as error:  # Damaged pickles raise nearly anything.
        reason = " ".join(f"{type(error).__name__} {error}".split())[:120]
        raise DataError(f"{path} is damaged, or no file of PyTorch ({reason}): get it again") from None


def _zipped(path: Path) -> Pickled:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl")]
        if len(roots) != 1:
            inside = [name for name in names if not name.endswith("/")]
            raise DataError(
                f"{path} is an archive of {', '.join(inside[:3])}: unpack it, and name the checkpoint inside"
            )
        root = roots[0]
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise DataError(f"{path} is compressed, which torch.save never does: get the file as its authors wrote it")
        if f"{root}constants.pkl" in names:
            raise DataError(f"{path} is a TorchScript program: name a checkpoint, which holds weights alone")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise DataError(f"{path} was written on a big-endian machine: load and save it again on a common one")
        with archive.open(f"{root}data.pkl") as file:
            tree = _Unpickler(file, path).load()

    def read(views: Mapping[str, View]) -> dict[str, Tensor]:
        with zipfile.ZipFile(path) as archive:
            return {name: _tensor(view, archive.read(f"{root}data/{view.storage.key}")) for name, view in views.items()}

    return Pickled(tree, _guarded(path, read))


def _legacy(path: Path) -> Pickled:
    """Pickles one after the other: a magic number, a version, the machine, the tree, the storages' keys; then these."""
    starts: dict[str, int] = {}
    with path.open("rb") as file:
        if _Unpickler(file, path).load() != LEGACY_MAGIC:
            raise DataError(f"{path} is a pickle, but not by torch.save: name a checkpoint with tensors")
        for _ in range(2):
            _Unpickler(file, path).load()
        unpickler = _Unpickler(file, path)
        tree = unpickler.load()
        for key in _Unpickler(file, path).load():
            storage = unpickler.storages[key]
            (elements,) = struct.unpack("<q", file.read(8))
            if elements != storage.elements:
                raise pickle.UnpicklingError(f"storage {key} of another size")
            starts[key] = file.tell()
            file.seek(elements * storage.dtype.itemsize, 1)

    def read(views: Mapping[str, View]) -> dict[str, Tensor]:
        tensors = {}
        with path.open("rb") as file:
            for name, view in views.items():
                file.seek(starts[view.storage.key])
                tensors[name] = _tensor(view, file.read(view.storage.elements * view.storage.dtype.itemsize))
        return tensors

    return Pickled(tree, _guarded(path, read))


def _tensor(view: View, data: bytes) -> Tensor:
    size = view.storage.elements * view.storage.dtype.itemsize
    if len(data) != size:
        raise EOFError(f"{len(data)} of {size} bytes")
    if not size:
        return torch.empty(view.shape, dtype=view.storage.dtype)
    numbers = torch.frombuffer(bytearray(data), dtype=view.storage.dtype)
    return numbers.as_strided(view.shape, view.stride, view.offset).clone(memory_format=torch.contiguous_format)


def _guarded(path: Path, read: Callable[..., dict[str, Tensor]]) -> Callable[..., dict[str, Tensor]]:
    def guarded(views: Mapping[str, View]) -> dict[str, Tensor]:
        try:
            return read(views)
        except Exception as error:  # As above.
            raise DataError(f"{path} is damaged ({' '.join(str(error).split())[:120]}): get it again") from None

    return guarded
