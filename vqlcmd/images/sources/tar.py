"""Tar archives as webdataset writes them: KEY.jpg beside KEY.cls or KEY.json, in any number of shards.

The headers are read once, without unpacking, to find the offset of every image. tarfile is not used: it takes a damaged
header in the middle for the end of the archive, and takes several times as long for millions of members.
"""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vqlcmd.images.formats import LeftOut, is_picture
from vqlcmd.images.sources.archives import Shard, class_name, is_hidden, slashed
from vqlcmd.images.sources.listing import raise_if_beyond, text_of
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts.json_file import parse_json
from vqlcmd.runtime.errors import DataError, shown, shown_repr

BLOCK = 512
REGULAR, LINKS, WITHOUT_CONTENTS = b"07\0", b"12", b"123456"
LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL, SPARSE = b"L", b"K", b"x", b"g", b"S"
LARGEST_LABEL, LARGEST_NAME = 2**24, 2**20
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


class _Member(NamedTuple):
    name: bytes
    kind: bytes
    offset: int
    size: int


class Tar:
    """The images of a tar archive, in the order of its members."""

    ending = ".tar"

    def index(self, path: Path, classes: bool) -> Shard:
        """See `archives.Format.index`.

        A label is the text of KEY.cls or, without it, `label` in KEY.json: a number or a name.
        """
        names, sizes, places, keys = [], [], [], []
        given: dict[bytes, dict[bytes, str | None]] = {b"cls": {}, b"json": {}}
        left_out = LeftOut()
        with path.open("rb") as file:
            for member in _members(file, path):
                name = _slashed(member.name)
                key, _, ending = name.rpartition(b".")
                labels, text = given.get(ending.lower()), text_of(name)
                if is_hidden(text):
                    continue
                if is_picture(text):
                    if member.kind in LINKS:
                        raise DataError(f"{path}: {shown(text)} is a link to another file; pack the files themselves")
                    names.append(name)
                    sizes.append(member.size)
                    places.append((member.offset, member.size))
                    keys.append(key)
                elif labels is not None and classes:
                    if key in labels:
                        raise DataError(f"{path}: it holds {shown(text)} twice; remove one, and pack it again")
                    labels[key] = _label(file, member, ending.lower(), f"{path}: {shown(text)}")
                else:
                    left_out.note(text)
        labels = {key: label for each in (given[b"json"], given[b"cls"]) for key, label in each.items() if label}
        if names and labels and not labels.keys() & set(keys):
            raise DataError(
                f"{path}: it holds labels, such as that of {shown(text_of(next(iter(labels))))}, but none of an image,"
                f" such as {shown(text_of(names[0]))}; name them alike up to the last dot, or scan with --no-classes"
            )
        found = np.array(places, dtype=np.int64).reshape(-1, 2)
        return Shard(names, sizes, found, [labels.get(key) for key in keys], left_out.counts)

    def read(self, file: io.BufferedReader, place: list[int]) -> bytes:
        """See `archives.Format.read`."""
        raise_if_beyond(place[1], paths.picture_memory())
        return _read(file, *place)


def is_compressed(source: str) -> bool:
    """Whether `source` is named like a compressed tar archive, which is then rejected with a reason."""
    name = os.path.basename(source).lower()
    return (".tar." in name or name.endswith(".tgz")) and os.path.isfile(source)


def _read(file: io.BufferedReader, offset: int, size: int) -> bytes:
    file.seek(offset)
    contents = file.read(size)
    if len(contents) < size:
        raise DataError("the archive is cut short")
    return contents


def _slashed(name: bytes) -> bytes:
    try:
        return slashed(name.decode()).encode() if b"\\" in name else name
    except UnicodeDecodeError:  # in another encoding the byte may be part of a character
        return name


def _label(file: io.BufferedReader, member: _Member, ending: bytes, where: str) -> str | None:
    """The class name in a label's file; None if a JSON file has none."""
    if member.size > LARGEST_LABEL:
        raise DataError(f"{where} has {member.size} bytes, too many for a label; scan with --no-classes")
    contents, remedy = _read(file, member.offset, member.size), "fix it there, or scan with --no-classes"
    try:
        value = contents.decode().strip() if ending == b"cls" else parse_json(contents, where, remedy, nan=True)
    except UnicodeDecodeError:
        raise DataError(f"{where} is no text; {remedy}") from None
    if isinstance(value, dict):
        value = value.get("label")
    if value is None or isinstance(value, list):
        return None
    if class_name(value) is None:
        raise DataError(f"{where} gives no class but {shown_repr(value)}; {remedy}")
    return class_name(value)


def _members(file: io.BufferedReader, path: Path) -> Iterator[_Member]:
    """Yields files and links.

    Raises DataError if the archive is damaged, cut short, compressed, or has sparse files.
    """
    length = os.fstat(file.fileno()).st_size
    offset = 0
    long_name: bytes | None = None
    long_size: int | None = None
    sparse = False
    while True:
        file.seek(offset)
        block = file.read(BLOCK)
        if offset == 0:
            _check_start(block, path)
        if len(block) < BLOCK:
            raise DataError(f"{path}: cut short: it ends at byte {length} without an end mark; fetch it again")
        if not any(block):
            return _check_end(file, path)
        member = _header(block, offset, path)
        if member.kind in REGULAR and long_size is not None:
            member = member._replace(size=long_size)
        if member.kind in (LONG_NAME, LONG_LINK, PAX) and member.size > LARGEST_NAME:
            raise DataError(f"{path}: damaged at byte {offset}: a name of {member.size} bytes; fetch it again")
        if member.offset + member.size > length:
            raise DataError(f"{path}: cut short: it ends at byte {length} within {_told(member)}; fetch it again")
        if member.kind == LONG_NAME:
            long_name = _read(file, member.offset, member.size).rstrip(b"\0")
        elif member.kind == PAX:
            try:
                said = _pax(_read(file, member.offset, member.size))
                long_size = _count(said[b"size"]) if b"size" in said else None
            except ValueError:
                raise DataError(f"{path}: damaged at byte {offset}: no extended header; fetch it again") from None
            long_name = said.get(b"path", long_name)
            sparse = any(key.startswith(b"GNU.sparse.") for key in said)
        elif member.kind not in (LONG_LINK, PAX_GLOBAL):
            if member.kind == SPARSE or sparse:
                raise DataError(f"{path}: {_told(member)} is stored as a sparse file; pack it without --sparse")
            if member.kind in REGULAR or member.kind in LINKS:
                yield member._replace(name=long_name or member.name)
            long_name = long_size = None
            sparse = False
        offset = member.offset + -(-member.size // BLOCK) * BLOCK


def _header(block: bytes, offset: int, path: Path) -> _Member:
    try:
        summed = int(block[148:156].strip(b" \0"), 8)
        size = _number(block[124:136])
    except ValueError:
        summed, size = -1, 0
    if summed != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise DataError(f"{path}: damaged at byte {offset}: no header of a tar archive; fetch it again")
    name, kind = block[:100].partition(b"\0")[0], block[156:157]
    if block[257:263] == b"ustar\0" and block[345] != 0:
        name = block[345:500].partition(b"\0")[0] + b"/" + name
    # Links and folders may declare a size, but no contents follow.
    return _Member(name, kind, offset + BLOCK, 0 if kind in WITHOUT_CONTENTS else size)


def _number(field: bytes) -> int:
    """The number in a field: octal digits or, if the first bit is set, binary, as for sizes from 8 GiB."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
    return _count(field.strip(b" \0") or b"0", 8)


def _count(digits: bytes, base: int = 10) -> int:
    """The number in `digits`. ValueError for signs: with a negative size, a member would lead back to itself."""
    if not digits.isdigit():
        raise ValueError(digits)
    return int(digits, base)


def _pax(contents: bytes) -> dict[bytes, bytes]:
    """Parses records `LENGTH KEY=VALUE\\n`, where LENGTH is that of the whole record."""
    said = {}
    while contents and not contents.startswith(b"\0"):
        digits = contents.partition(b" ")[0]
        length = int(digits)
        if not len(digits) < length <= len(contents):
            raise ValueError(length)
        key, _, value = contents[len(digits) + 1 : length - 1].partition(b"=")
        said[key] = value
        contents = contents[length:]
    return said


def _check_start(block: bytes, path: Path) -> None:
    for start, name in COMPRESSED.items():
        if block.startswith(start):
            raise DataError(f"{path}: compressed by {name}, so no image can be read without the ones before; unpack it")


def _check_end(file: io.BufferedReader, path: Path) -> None:
    while rest := file.read(64 * BLOCK):
        if any(rest):
            raise DataError(f"{path}: it goes on after its end mark, as where archives were joined; split it again")


def _told(member: _Member) -> str:
    return shown(text_of(member.name))
