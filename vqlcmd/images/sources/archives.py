"""Images in archives that stay packed, one file or a folder of many: each image is read at its offset.

An archive's format is a class of its own (`tar.Tar`, `zip.Zip`), which finds the images and reads the bytes of one.
Each archive is a shard with an entry in the manifest.
"""

import io
import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from vqlcmd.images.formats import ACCEPTED, is_picture, open_picture
from vqlcmd.images.sources.listing import (
    Entry,
    Labels,
    Names,
    first_folder,
    mixed,
    no_classes,
    raise_if_unfit,
    short_digest,
    text_of,
    utf8,
)
from vqlcmd.runtime.errors import DataError, shown

ENDINGS = (".tar", ".zip")
LONGEST_CLASS = 200


class Shard(NamedTuple):
    """The images of one archive, in order. `labels` has None for an image without a label.

    `places` is int64 [images, k]: whatever the format needs to find an image's bytes. `without_labels` is true if the
    archive states that it has no labels; then its folders are not classes either. `left_out` is as in `ImageSource`.
    """

    names: list[bytes]
    sizes: list[int]
    places: np.ndarray
    labels: list[str | None]
    left_out: dict[str, int]
    without_labels: bool = False


class Format(Protocol):
    """An archive format: how to index an archive and how to read one image. Instances keep no state."""

    ending: str

    def index(self, path: Path, classes: bool) -> Shard:
        """The images in the archive, with labels only if `classes`.

        Raises DataError if it is damaged or cannot be indexed.
        """
        ...

    def read(self, file: io.BufferedReader, place: list[int]) -> bytes:
        """The bytes of one image. Raises if the archive is not what it was when it was indexed."""
        ...


def matches(source: str, ending: str) -> bool:
    """Whether `source` is a file with the ending, or a folder with such a file directly in it."""
    if os.path.isdir(source):
        names = os.listdir(source) if os.access(source, os.R_OK) else []
        return any(name.lower().endswith(ending) and not name.startswith(".") for name in names)
    return source.lower().endswith(ending) and os.path.isfile(source)


class Archives:
    """The images of archives: archives by name, and within each in an order that its format fixes.

    The classes are the labels in the archives, or else their first-level folders; those of the second level if a single
    folder holds everything. Arrays of some tens of bytes an image stay in memory. The file is opened for each image and
    closed again, so that processes share nothing.
    """

    def __init__(self, path: Path, kind: Format, classes: bool = True) -> None:
        """Raises DataError if there is no archive or image, an archive is damaged, or only some images have a class."""
        self._path, self._kind = path, kind
        self._folder, found = _found(path, kind.ending)
        given, folders = Labels(), Labels()
        self._shards: list[str] = []
        self._names: list[Names] = []
        self._places: list[np.ndarray] = []
        left_out = Counter[str]()
        entries, labelled = [], classes
        for shard in found:
            try:
                inside = kind.index(self._folder / shard, classes)
            except OSError as error:
                raise DataError(f"{self._folder / shard}: cannot be read ({error.strerror or error})") from None
            left_out += Counter(inside.left_out)
            if not inside.names:
                continue
            _check_names(inside.names, self._folder / shard)
            for name, label in zip(inside.names, inside.labels, strict=True):
                given.append(label or "")
                folders.append(first_folder(text_of(name)))
            self._shards.append(shard)
            self._names.append(Names(inside.names))
            self._places.append(inside.places)
            entries.append(_entry(shard, inside))
            labelled = labelled and not inside.without_labels
        if not entries:
            raise DataError(f"{path}: no images in its {kind.ending} archives; accepted are {ACCEPTED}")
        self.entries, self.left_out = tuple(entries), dict(left_out)
        self._ends = np.cumsum([len(names) for names in self._names])
        self.classes, self.labels = self._classes(given, folders) if labelled else no_classes(len(self))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def name(self, i: int) -> str:
        shard, inside = self._locate(i)
        return f"{self._shards[shard]}/{text_of(self._names[shard][inside])}"

    def open(self, i: int) -> Image.Image:
        return open_picture(self.contents(i))

    def contents(self, i: int) -> bytes:
        shard, inside = self._locate(i)
        with (self._folder / self._shards[shard]).open("rb") as file:
            return self._kind.read(file, self._places[shard][inside].tolist())

    def _locate(self, i: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._ends, i, side="right"))
        return shard, i - int(self._ends[shard - 1] if shard else 0)

    def _classes(self, given: Labels, folders: Labels) -> tuple[tuple[str, ...], np.ndarray]:
        if given.names - {""}:
            missing = given.first("")
            if missing is not None:
                raise DataError(
                    f"{self._path}: {shown(self.name(missing))} has no label, but other images have;"
                    " give it one, or scan with --no-classes"
                )
            return given.ordered()
        if len(folders.names) == 1 and "" not in folders.names:
            folders = self._below(*folders.names)
        loose, nested = folders.first(""), next((folders.first(name) for name in folders.names - {""}), None)
        if loose is not None and nested is not None:
            raise DataError(f"{self._path}: {mixed(shown(self.name(loose)), shown(self.name(nested)))}")
        return folders.ordered() if loose is None else no_classes(len(self))

    def _below(self, top: str) -> Labels:
        """The second-level folders, where one folder holds all images: the folder that was packed."""
        folders = Labels()
        for names in self._names:
            for i in range(len(names)):
                folders.append(first_folder(below(text_of(names[i]), top)))
        return folders


def class_name(label: object) -> str | None:
    """A label as a class name: a whole number, or text that can be part of a file name. None for anything else."""
    name = str(label) if type(label) in (int, str) else ""
    fit = name.isprintable() and not {"/", "\\"} & set(name) and len(name) <= LONGEST_CLASS
    return name if fit and name else None


def is_hidden(name: str) -> bool:
    """Whether a member is hidden, or lies in a hidden folder."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def slashed(name: str) -> str:
    """A member's name with forward slashes, since some programs on Windows write backslashes."""
    return name.replace("\\", "/")


def below(name: str, top: str) -> str:
    """A member's name relative to the folder `top`, in which it lies."""
    return name.removeprefix("./").removeprefix(top).lstrip("/")


def _found(path: Path, ending: str) -> tuple[Path, list[str]]:
    """The folder, and the names of the archives in it.

    Raises DataError if it also holds images, folders or archives of another kind, which would be overlooked.
    """
    if not path.is_dir():
        return path.parent, [utf8(path.name, path)]
    shards, others = [], []
    for item in sorted(path.iterdir()):
        name = item.name.lower()
        if not name.startswith("."):
            if name.endswith(ending):
                shards.append(utf8(item.name, path))
            elif item.is_dir() or is_picture(name) or name.endswith(ENDINGS):
                others.append(item.name)
    if not shards:
        raise DataError(f"{path}: no {ending} archives in it")
    if others:
        raise DataError(
            f"{path}: beside {ending} archives (such as {shards[0]}) it holds {others[0]};"
            " move the archives into a folder of their own"
        )
    return path, shards


def _entry(shard: str, inside: Shard) -> Entry:
    """The archive's entry in the manifest. The digest covers names, sizes and labels in order, not the contents."""
    lines = (
        b"%s\0%d\0%s\0" % (name, size, (label or "").encode())
        for name, size, label in zip(inside.names, inside.sizes, inside.labels, strict=True)
    )
    return Entry(path=shard, images=len(inside.names), bytes=sum(inside.sizes), digest=short_digest(lines))


def _check_names(names: list[bytes], path: Path) -> None:
    """Raises DataError for names that no source accepts, and for duplicates: unpacking would keep only the last."""
    seen: set[bytes] = set()
    for name in names:
        raise_if_unfit(text_of(name), path)
        plain = name.removeprefix(b"./")
        if plain in seen:
            raise DataError(f"{path}: it holds {shown(text_of(name))} twice; remove one, and pack it again")
        seen.add(plain)
