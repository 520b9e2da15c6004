"""What every image source provides: a fixed order, names, labels, and entries that identify its contents."""

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from vqlcmd.runtime.errors import DataError, shown

LONGEST_NAME = 4096
ABSOLUTE = re.compile(r"/|[A-Za-z]:[/\\]")
CONTROL = ("Cc", "Zl", "Zp")
"""Unicode's categories of control characters, line separators and paragraph separators."""


class Entry(BaseModel):
    """One directory or shard of a source. If its entry has not changed, its images are taken to be the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    images: PositiveInt
    bytes: NonNegativeInt
    digest: str


class ImageSource(Protocol):
    """Images in a fixed order, the same on every machine. No image is opened before it is asked for.

    `classes` are names in `class_order`, empty if there are none; `labels` is int64 [len], positions in `classes` or
    all 0. `name(i)` is the image's name in messages; `open(i)` returns a PIL image, which the caller closes;
    `contents(i)` returns its bytes as stored, or the bytes of its pixels if there is no file. `open` and `contents` may
    raise anything. `left_out` counts, by extension, the files that look like pictures but are not read.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    entries: tuple[Entry, ...]
    left_out: dict[str, int]

    def __len__(self) -> int: ...
    def name(self, i: int) -> str: ...
    def open(self, i: int) -> Image.Image: ...
    def contents(self, i: int) -> bytes: ...


class Names:
    """The names of millions of images in two arrays; as Python strings they would take several times the memory."""

    def __init__(self, names: Iterable[bytes]) -> None:
        text, ends = bytearray(), array("q", [0])
        for name in names:
            text += name
            ends.append(len(text))
        self._text, self._ends = np.frombuffer(text, dtype=np.uint8), np.frombuffer(ends, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: int) -> bytes:
        return self._text[self._ends[i] : self._ends[i + 1]].tobytes()


class Labels:
    """The class name of each image, stored as a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._given = array("q")

    def append(self, name: str) -> None:
        """Adds the class of the next image."""
        self._given.append(self._numbers.setdefault(name, len(self._numbers)))

    @property
    def names(self) -> set[str]:
        """The class names given so far."""
        return set(self._numbers)

    def first(self, name: str) -> int | None:
        """The position of the first image of a class; None if there is none."""
        return self._given.index(self._numbers[name]) if name in self._numbers else None

    def ordered(self) -> tuple[tuple[str, ...], np.ndarray]:
        """The classes in `class_order`, and the labels int64 [n]: positions in it."""
        classes = class_order(self._numbers)
        position = {name: i for i, name in enumerate(classes)}
        of_number = np.array([position[name] for name in self._numbers], dtype=np.int64)
        return classes, of_number[np.frombuffer(self._given, dtype=np.int64)]


def no_classes(count: int) -> tuple[tuple[str, ...], np.ndarray]:
    """What `Labels.ordered` returns for `count` images without classes: (), and zeros int64 [count]."""
    return (), np.zeros(count, dtype=np.int64)


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct names, sorted; by value if all are whole numbers, so that class 10 does not come before 9."""
    distinct = sorted(set(names))
    if all(name.isascii() and name.isdigit() for name in distinct):
        distinct.sort(key=int)
    return tuple(distinct)


def first_folder(name: str) -> str:
    """The first folder in an image's relative path, which is its class; "" if the image lies in no folder."""
    folder, slash, _ = name.removeprefix("./").partition("/")
    return folder if slash else ""


def raise_if_unfit(name: str, where: Path) -> None:
    """Raises DataError for a name that no kind of source accepts, so that all kinds agree on what a data set is.

    These are absolute names, names with a component `..` or a control character, and names of more than 4,096
    characters.
    """
    if len(name) > LONGEST_NAME:
        wrong = f"is longer than {LONGEST_NAME:,} characters"
    elif ABSOLUTE.match(name):
        wrong = "is absolute"
    elif ".." in name and ".." in name.split("/"):
        wrong = "leads out of its folder"
    elif not name.isprintable() and any(unicodedata.category(each) in CONTROL for each in name):
        wrong = "holds a control character"
    else:
        return
    raise DataError(f"{where}: the name '{shown(name)}' {wrong}; rename it, and pack again what is packed")


def text_of(name: bytes) -> str:
    """A name as text, for messages and classes; bytes that are not UTF-8 become escapes, so names stay distinct."""
    return name.decode(errors="backslashreplace")


def utf8(name: str, where: Path) -> str:
    """The file name, if a manifest can hold it. Raises DataError if its bytes are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: the file name {name!a} is not UTF-8; rename the file") from None
    return name


def raise_if_beyond(size: int, limit: int) -> None:
    """Raises DataError if a file has more bytes than `limit`, the memory that its decoded picture may take."""
    if size > limit:
        raise DataError(f"it has {size // 10**6} MB; set VQLCMD_PICTURE_MB to more, or leave it out")


def mixed(loose: str, nested: str) -> str:
    """The error message, with its remedy, for images of which some lie in folders and others do not."""
    return (
        f"images lie both directly in it (such as {loose}) and in sub-folders (such as {nested});"
        " move the former into a sub-folder of their own, or all of them into one folder,"
        " or scan with --no-classes"
    )


def short_digest(parts: Iterable[bytes]) -> str:
    """The first 16 hexadecimal digits of SHA-256 over the parts in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
