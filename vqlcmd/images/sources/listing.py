"""What every source of images gives: a fixed order, names, labels, and entries that vouch for them."""

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
"""Unicode's categories of control characters and of ends of lines and paragraphs."""


class Entry(BaseModel):
    """One directory or shard of a source: what has to be the same for the images to be the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    images: PositiveInt
    bytes: NonNegativeInt
    digest: str


class ImageSource(Protocol):
    """Images in a fixed order, the same on every machine. Opens nothing before it is asked for an image.

    `classes` are names in `class_order`, empty where there are none; `labels` is int64 [len], positions in `classes`
    or all 0. `name(i)` is the image's name for people, `open(i)` gives a PIL image to be closed by the caller.
    `contents(i)` are its bytes as they lie there, of pixels where there is no file; both may raise anything.
    `left_out` counts the files beside them that look like pictures but are not read, by ending.
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
    """Names of millions of images in two arrays, where as many Python strings would take several times the memory."""

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
    """A class name for each image, kept as a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._given = array("q")

    def append(self, name: str) -> None:
        """The class of the next image."""
        self._given.append(self._numbers.setdefault(name, len(self._numbers)))

    @property
    def names(self) -> set[str]:
        """The class names given so far."""
        return set(self._numbers)

    def first(self, name: str) -> int | None:
        """The position of the first image of a class, None where there is none."""
        return self._given.index(self._numbers[name]) if name in self._numbers else None

    def ordered(self) -> tuple[tuple[str, ...], np.ndarray]:
        """The classes in their order, and the labels int64 [n]: positions in it."""
        classes = class_order(self._numbers)
        position = {name: i for i, name in enumerate(classes)}
        of_number = np.array([position[name] for name in self._numbers], dtype=np.int64)
        return classes, of_number[np.frombuffer(self._given, dtype=np.int64)]


def no_classes(count: int) -> tuple[tuple[str, ...], np.ndarray]:
    """As `Labels.ordered`, for images without classes."""
    return (), np.zeros(count, dtype=np.int64)


def class_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names sorted; where all are whole numbers, by their value, so that class 10 does not come before 9."""
    distinct = sorted(set(names))
    if all(name.isascii() and name.isdigit() for name in distinct):
        distinct.sort(key=int)
    return tuple(distinct)


def first_folder(name: str) -> str:
    """The first-level folder of an image's relative path, which is its class; "" where the image lies in none."""
    folder, slash, _ = name.removeprefix("./").partition("/")
    return folder if slash else ""


def raise_if_unfit(name: str, where: Path) -> None:
    """DataError for a name that no kind of source takes, though some could: so they all agree on what is a data set.

    Absolute ones, those with a component `..` or a control character, and those of more than 4,096 characters.
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
    """For people, and as the name of a class: what is not UTF-8 stays distinct, as an escape."""
    return name.decode(errors="backslashreplace")


def utf8(name: str, where: Path) -> str:
    """The name of a file, which a manifest can hold. DataError where its bytes are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}: the file name {name!a} is not UTF-8; rename the file") from None
    return name


def raise_if_beyond(size: int, limit: int) -> None:
    """DataError for a file of more bytes than the picture in it may have."""
    if size > limit:
        raise DataError(f"it has {size // 10**6} MB; set VQLCMD_PICTURE_MB to more, or leave it out")


def mixed(loose: str, nested: str) -> str:
    """What is wrong where some images lie in folders and others do not, and what to do."""
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
