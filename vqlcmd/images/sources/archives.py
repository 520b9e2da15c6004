"""Images in archives that stay packed: one file, or a folder of many, read by position.

An archive's format is a class of its own (`tar.Tar`, `zip.Zip`), which finds the images and gives the bytes of one.
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
    """The images of one archive in their order. `labels` are None where none is given for an image.

    `places` is int64 [images, k]: whatever the format needs to find an image's bytes. `without_labels` is true where
    the archive says itself that it has none, and its folders are no classes. `left_out` as in `ImageSource`.
    """

    names: list[bytes]
    sizes: list[int]
    places: np.ndarray
    labels: list[str | None]
    left_out: dict[str, int]
    without_labels: bool = False


class Format(Protocol):
    """One kind of archive; instances hold nothing but how to read."""

    ending: str

    def index(self, path: Path, classes: bool) -> Shard:
        """What is in the archive, labels only with `classes`. DataError where it is damaged, or cannot be indexed."""
        ...

    def read(self, file: io.BufferedReader, place: list[int]) -> bytes:
        """One image's bytes. Raises where the archive is not what it was."""
        ...


def matches(source: str, ending: str) -> bool:
    """Whether `source` is a file with the ending, or a folder with such a file directly in it."""
    if os.path.isdir(source):
        names = os.listdir(source) if os.access(source, os.R_OK) else []
        return any(name.lower().endswith(ending) and not name.startswith(".") for name in names)
    return source.lower().endswith(ending) and os.path.isfile(source)


class Archives:
    """Archives in the order of their names, and in each the images in its own order, which the format fixes.

    Classes are the labels in the archives, or else the first-level folders in them, below the one folder that may
    hold everything. In memory are arrays of some tens of bytes an image. A file is opened for each image and closed
    again, so that processes share nothing.
    """

    def __init__(self, path: Path, kind: Format, classes: bool = True) -> None:
        """DataError where there is no archive or image, an archive is damaged, or only some images have a label."""
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
        """The second-level folders, where all images lie in one folder of the first: that of what was packed."""
        folders = Labels()
        for names in self._names:
            for i in range(len(names)):
                folders.append(first_folder(below(text_of(names[i]), top)))
        return folders


def class_name(label: object) -> str | None:
    """A label as the name of a class: a whole number, or text fit to stand in a file's name. None for anything else."""
    name = str(label) if type(label) in (int, str) else ""
    fit = name.isprintable() and not {"/", "\\"} & set(name) and len(name) <= LONGEST_CLASS
    return name if fit and name else None


def is_hidden(name: str) -> bool:
    """Whether a member is hidden, or lies in a hidden folder."""
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def slashed(name: str) -> str:
    """A member's name with the separators that archives should have: some programs write those of Windows."""
    return name.replace("\\", "/")


def below(name: str, top: str) -> str:
    """A member's name without the folder `top` that it lies in."""
    return name.removeprefix("./").removeprefix(top).lstrip("/")


def _found(path: Path, ending: str) -> tuple[Path, list[str]]:
    """The folder, and the archives in it. DataError where other images lie beside them, which would go unseen."""
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
    """The digest covers names, sizes and labels of the images in their order, not the contents."""
    lines = (
        b"%s\0%d\0%s\0" % (name, size, (label or "").encode())
        for name, size, label in zip(inside.names, inside.sizes, inside.labels, strict=True)
    )
    return Entry(path=shard, images=len(inside.names), bytes=sum(inside.sizes), digest=short_digest(lines))


def _check_names(names: list[bytes], path: Path) -> None:
    """DataError for names that no source takes, and for two members of one name: unpacked, only the last would be."""
    seen: set[bytes] = set()
    for name in names:
        raise_if_unfit(text_of(name), path)
        plain = name.removeprefix(b"./")
        if plain in seen:
            raise DataError(f"{path}: it holds {shown(text_of(name))} twice; remove one, and pack it again")
        seen.add(plain)
