"""Reads pickles that contain tensors, without running anything that they ask for.

A pickle is a program: it names functions and has them called. Here every name leads to something in this module, which
does nothing or makes a record, and nothing is ever imported. A name is refused as soon as it is mentioned, unless it is
that of a tensor, of harmless data or of a class in some package.
"""

import _compat_pickle
import math
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

import torch

from vqlcmd.runtime.errors import DataError, shown

PICKLE_BYTES = 4 * 2**20
"""The largest pickle. That of a training run takes about one million bytes: names, shapes, bookkeeping, no numbers."""
DIMENSIONS = 8
"""The most dimensions of a tensor."""
KEY_PARTS = 100
"""The most parts of a tuple that is a key, nested ones included: hashing it recurses without any limit of its own."""
WHOLE = 2**60
"""Whole numbers must be below it: as keys of a dictionary, those cannot be made to collide."""
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
# Data types of the standard library, numpy and torch that checkpoints contain beside tensors. They become stubs too.
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
    """A run of numbers in the file; `elements` is how many."""

    key: str
    dtype: torch.dtype
    elements: int


class View(NamedTuple):
    """A tensor: where its numbers are in a storage. `offset` and `stride` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Kind(NamedTuple):
    dtype: torch.dtype


class _Dict(dict[Any, Any]):
    """An OrderedDict or a defaultdict; attributes that the file sets on it are ignored."""

    def __init__(self, *args: Any) -> None:
        given = args[0] if args and isinstance(args[0], list | dict) else ()
        if isinstance(given, list):
            for key, _ in given:
                _raise_if_no_key(key)
        super().__init__(given)

    def __setstate__(self, state: Any) -> None:
        pass


class _Stub:
    """Stands for an object of any other class: accepts what the file gives it, and keeps nothing."""

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


class Settings(_Stub):
    """Stands for an argparse.Namespace: keeps the plain values by name, in `held`, and nothing else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.held: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.held = plain(state)


class _Call:
    """A function that the file may have called, always one of this module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("attributes of a function")


def plain(values: Any) -> dict[str, Any]:
    """The booleans, integers and strings in a dictionary, by name; empty if `values` is not a dictionary."""
    if not isinstance(values, dict):
        return {}
    return {
        name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, bool | int | str)
    }


def _whole(number: Any) -> bool:
    return type(number) is int and 0 <= number < WHOLE


def _view(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> View:
    """`storage[offset:]` as a tensor, after checking that it lies within the storage."""
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise pickle.UnpicklingError("a tensor without a storage")
    if len(shape) > DIMENSIONS:
        raise pickle.UnpicklingError(f"a tensor of {len(shape)} dimensions")
    if not all(map(_whole, (offset, *shape, *stride))):
        raise pickle.UnpicklingError("a tensor without a storage")
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    if math.prod(shape) > storage.elements or (math.prod(shape) and last >= storage.elements):
        raise pickle.UnpicklingError("a tensor larger than its storage")
    return View(storage, offset, tuple(shape), tuple(stride))


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _raise_if_no_key(key: Any) -> None:
    """UnpicklingError for a key that takes long to hash or crashes the process: many tuples, numbers that collide."""
    parts, left = [key], KEY_PARTS
    while parts:
        part, left = parts.pop(), left - 1
        if isinstance(part, tuple):
            parts.extend(part[: KEY_PARTS + 1])
        if left < 0 or (isinstance(part, int) and abs(part) >= WHOLE):
            raise pickle.UnpicklingError("a key too long or too deep")


class Bounded:
    """The next PICKLE_BYTES of a file: reading further is an error, however much a pickle asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.left = file, PICKLE_BYTES

    def read(self, size: int) -> bytes:
        data = self._counted(self.file.read(min(size, self.left + 1)))
        if len(data) < size and data:
            raise EOFError(f"{len(data)} of {size} bytes")
        return data

    def readline(self) -> bytes:
        line = self._counted(self.file.readline(self.left + 1))
        if not line.endswith(b"\n"):
            raise EOFError("it ends within a line")
        return line

    def _counted(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left < 0:
            raise pickle.UnpicklingError(f"more than {PICKLE_BYTES} bytes beside the numbers")
        return data


# The implementation in Python, not the one in C, which hashes keys before they can be checked (deep ones crash the
# process) and allocates room for as many objects as a file says.
_PYTHON: Any = pickle._Unpickler


class Unpickler(_PYTHON):
    """Reads a pickle of `path` as dicts and lists, with a View for each tensor."""

    dispatch: dict[int, Any] = dict(_PYTHON.dispatch)  # noqa: RUF012

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(Bounded(file), encoding="utf-8", errors="replace")
        self.path = path
        self.storages: dict[str, Storage] = {}
        self._names: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor"): _Call(_view),
            ("torch._utils", "_rebuild_tensor_v2"): _Call(_view),
            ("torch._utils", "_rebuild_parameter"): _Call(_parameter),
            ("torch._utils", "_rebuild_parameter_with_state"): _Call(_parameter),
            ("collections", "OrderedDict"): _Dict,
            ("collections", "defaultdict"): _Dict,
            ("argparse", "Namespace"): type("Namespace", (Settings,), {}),
            **{("torch", name): _Kind(dtype) for name, dtype in STORAGES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for the name here. Raises DataError if the name has no business in a file of tensors."""
        if (module, name) not in self._names:
            # Old protocols use the names that the standard library had in Python 2.
            place, it = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            place = _compat_pickle.IMPORT_MAPPING.get(place, place)
            harmless = it in HARMLESS.get(place, "").split()
            of_a_package = place.partition(".")[0] not in sys.stdlib_module_names
            if not (harmless or (of_a_package and it.rpartition(".")[2].lstrip("_")[:1].isupper())):
                rule = "is no tensor and could run code; nothing of it was run"
                raise DataError(
                    f"{self.path} is refused: it names {shown(f'{module}.{name}', 100)}, which {rule}; "
                    "get it as .safetensors, or not at all"
                )
            self._names[module, name] = type("Stub", (_Stub,), {})
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Storage:
        """The storage that `pid` describes."""
        kind, dtype, key, _, elements, *views = pid
        known = kind == "storage" and isinstance(dtype, _Kind) and isinstance(key, str | int)
        if not known or not _whole(elements) or any(views):
            raise pickle.UnpicklingError("a storage of an unknown kind")
        storage = Storage(str(key), dtype.dtype, elements)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise pickle.UnpicklingError(f"two storages {storage.key}")
        return storage

    def _bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(min(size, PICKLE_BYTES + 1))))

    dispatch[pickle.BYTEARRAY8[0]] = _bytearray8


def _checked(opcode: bytes, keys: slice) -> None:
    """Makes an instruction check the keys that it takes from the stack before it hashes them."""
    instruction = _PYTHON.dispatch[opcode[0]]

    def checked(self: Any) -> None:
        for key in self.stack[keys]:
            _raise_if_no_key(key)
        instruction(self)

    Unpickler.dispatch[opcode[0]] = checked


for _opcode in (pickle.SETITEMS, pickle.DICT):
    _checked(_opcode, slice(0, None, 2))
for _opcode in (pickle.ADDITEMS, pickle.FROZENSET):
    _checked(_opcode, slice(None))
_checked(pickle.SETITEM, slice(-2, -1))
