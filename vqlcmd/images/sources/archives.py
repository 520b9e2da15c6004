"""Images in archives that stay packed: one file, or a folder of many, read by position.

An archive's format is a class of its own (`tar.Tar`, `zip.Zip`), which finds the images and gives the bytes of one.
Each archive is a shard with an entry in the manifest.
"""

import io
import os
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from vqlcmd.images.sources.listing import (
    ACCEPTED,
    EXTENSIONS,
    Entry,
    Labels,
    Names,
    first_folder,
    mixed,
    no_classes,
    short_digest,
    utf8,
)
from vqlcmd.runtime.errors import DataError

ENDINGS = (".tar", ".zip")


class Shard(NamedTuple):
    """The images of one archive in their order. `labels` are None where none is given for an image.

    `places` is int64 [images, k]: whatever the format needs to find an image's bytes. `without_labels` is true where
    the archive says itself that it has none, and its folders are no classes.
    """

    names: list[bytes]
    sizes: list[int]
    places: np.ndarray
    labels: list[str | None]
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

    Classes are the labels in the archives, or else the first-level folders in them. In memory are arrays of some tens
    of bytes an image. A file is opened for each image and closed again, so that processes share nothing.
    """

    def __init__(self, path: Path, kind: Format, classes: bool = True) -> None:
        """DataError where there is no archive or image, an archive is damaged, or only some images have a label."""
        self._path, self._kind = path, kind
        self._folder, found = _found(path, kind.ending)
        given, folders = Labels(), Labels()
        self._shards: list[str] = []
        self._names: list[Names] = []
        self._places: list[np.ndarray] = []
        entries, labelled = [], classes
        for shard in found:
            try:
                inside = kind.index(self._folder / shard, classes)
            except OSError as error:
                raise DataError(f"{self._folder / shard}: cannot be read ({error.strerror or error})") from None
            if not inside.names:
                continue
            for name, label in zip(inside.names, inside.labels, strict=True):
                given.append(label or "")
                folders.append(first_folder(_text(name)))
            self._shards.append(shard)
            self._names.append(Names(inside.names))
            self._places.append(inside.places)
            entries.append(_entry(shard, inside))
            labelled = labelled and not inside.without_labels
        if not entries:
            raise DataError(f"{path}: no images in its {kind.ending} archives; accepted are {ACCEPTED}")
        self.entries = tuple(entries)
        self._ends = np.cumsum([len(names) for names in self._names])
        self.classes, self.labels = self._classes(given, folders) if labelled else no_classes(len(self))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def name(self, i: int) -> str:
        shard, inside = self._locate(i)
        return f"{self._shards[shard]}/{_text(self._names[shard][inside])}"

    def open(self, i: int) -> Image.Image:
        shard, inside = self._locate(i)
        with (self._folder / self._shards[shard]).open("rb") as file:
            return Image.open(io.BytesIO(self._kind.read(file, self._places[shard][inside].tolist())))

    def _locate(self, i: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._ends, i, side="right"))
        return shard, i - int(self._ends[shard - 1] if shard else 0)

    def _classes(self, given: Labels, folders: Labels) -> tuple[tuple[str, ...], np.ndarray]:
        if given.names - {""}:
            missing = given.first("")
            if missing is not None:
                raise DataError(
                    f"{self._path}: {self.name(missing)} has no label, but other images have;"
                    " give it one, or scan with --no-classes"
                )
            return given.ordered()
        loose, nested = folders.first(""), next((folders.first(name) for name in folders.names - {""}), None)
        if loose is not None and nested is not None:
            raise DataError(f"{self._path}: {mixed(self.name(loose), self.name(nested))}")
        return folders.ordered() if loose is None else no_classes(len(self))


def class_name(label: object) -> str | None:
    """A label as the name of a class: a whole number, or text fit to stand in a file's name. None for anything else."""
    name = str(label) if type(label) in (int, str) else ""
    return name if name.isprintable() and not {"/", "\\"} & set(name) and name else None


def is_image(name: str) -> bool:
    """Whether a member is taken for an image: by its ending, and not hidden or in a hidden folder."""
    return name.lower().endswith(EXTENSIONS) and not any(
        part.startswith(".") and part != "." for part in name.split("/")
    )


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
            elif item.is_dir() or name.endswith(EXTENSIONS + ENDINGS):
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


def _text(name: bytes) -> str:
    """For people, and as the name of a class: what is not UTF-8 stays distinct."""
    return name.decode(errors="backslashreplace")
