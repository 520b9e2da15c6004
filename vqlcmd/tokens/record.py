"""A shard's single record, a tar of .npy files: written by webdataset, read without trusting anything in it.

`tokens.npy` uint16 (n, N), `cls.npy` int64 (n,) and `index.npy` int64 (n,). Types and shapes are known from the
shards' header, so nothing in a file is evaluated or unpickled: its own description is compared with the expected one.
"""

import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from vqlcmd.runtime.errors import DataError
from vqlcmd.tokens.header import MOST_CODES

TAR_BYTES = 2**16
"""Most bytes of a tar besides the arrays' data: headers, padding, and the zeros at the end."""
MAGIC = b"\x93NUMPY\x01\x00"


def write_record(path: Path, number: int, tokens: np.ndarray, labels: np.ndarray, index: np.ndarray) -> None:
    """Write tokens (n, N), classes (n,) and source positions (n,) as a tar; equal arguments give equal bytes.

    DataError where a token does not fit into 16 bits.
    """
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < MOST_CODES:
        raise DataError(f"{path}: tokens from {tokens.min()} to {tokens.max()} do not fit into 16 bits, 0 to 65535")
    # Imported here, since it imports PyTorch's data loaders, which reading does not need.
    import webdataset

    with webdataset.TarWriter(str(path), mtime=0) as writer:  # type: ignore[no-untyped-call]
        record = {"tokens.npy": tokens.astype(np.uint16), "cls.npy": labels, "index.npy": index}
        writer.write({"__key__": f"{number:06}", **record})


def read_record(path: Path, images: int, header: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, classes and source positions of `images` images, as write_record got them.

    DataError where the file does not hold exactly these arrays, with the shapes and ranges that `header` implies.
    """
    expected: dict[str, tuple[str, tuple[int, ...]]] = {
        "tokens.npy": ("<u2", (images, header["tokens"])),
        "cls.npy": ("<i8", (images,)),
        "index.npy": ("<i8", (images,)),
    }
    try:
        contents = _members(path, images * (2 * header["tokens"] + 16) + TAR_BYTES)
        if contents.keys() != expected.keys():
            raise ValueError(f"its members are not {', '.join(expected)}")
        tokens, labels, index = (
            parse_npy(contents[name], dtype, shape, name) for name, (dtype, shape) in expected.items()
        )
        _check_range("tokens.npy", tokens, header["codes"])
        _check_range("cls.npy", labels, max(len(header["classes"]), 1))
        _check_range("index.npy", index, 2**62)
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({' '.join(str(error).split())[:120]}): run `dvc repro`") from None
    return tokens, labels, index


def parse_npy(contents: bytes, dtype: str, shape: tuple[int | None, ...], name: str) -> np.ndarray:
    """The array in a .npy file, which must have this dtype and shape (None: any length). ValueError otherwise."""
    start = len(MAGIC) + 2
    length = int.from_bytes(contents[len(MAGIC) : start], "little")
    text = contents[start : start + length]
    sides = ", ".join(r"(\d{1,12})" if side is None else f"({side})" for side in shape)
    sides += "," * (len(shape) == 1)
    wanted = rf"\{{'descr': '{re.escape(dtype)}', 'fortran_order': False, 'shape': \({sides}\), \}} *\n"
    found = re.fullmatch(wanted.encode(), text)
    if not contents.startswith(MAGIC) or found is None:
        raise ValueError(f"{name} does not hold {dtype} {shape}")
    sizes = tuple(int(side) for side in found.groups())
    if len(contents) - start - length != np.dtype(dtype).itemsize * np.prod(sizes, dtype=object):
        raise ValueError(f"{name} is cut short, or longer than it says")
    return np.frombuffer(contents, dtype, offset=start + length).reshape(sizes)


def _members(path: Path, at_most: int) -> dict[str, bytes]:
    """{file extension: contents} of a tar's plain files. Compressed tars, links and sparse files are errors."""
    size = path.stat().st_size
    if size > at_most:
        raise ValueError(f"{size} bytes, of which {at_most} are enough for what it should hold")
    found: dict[str, bytes] = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            ending = member.name.partition(".")[2]
            if not member.isreg() or member.issparse() or not 0 <= member.size <= size or ending in found:
                raise ValueError(f"{member.name[:40]!r} is not one plain file")
            file = tar.extractfile(member)
            found[ending] = file.read() if file else b""
    return found


def _check_range(name: str, values: np.ndarray, limit: int) -> None:
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < limit:
        raise ValueError(f"{name} holds {values.min()} to {values.max()}, but must lie in 0 to {limit - 1}")
