"""A data set's manifest: a small JSON file in Git that says which images a run used, and nothing about the machine."""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vqlcmd.images.sources import KINDS, BuiltIn, Entry, ImageSource, class_order, short_digest
from vqlcmd.images.sources.listing import utf8
from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import DataError, shown
from vqlcmd.runtime.files import atomic_write

NAME = r"^[A-Za-z0-9_-]+$"
NAMED_AT_MOST = 5


class Manifest(BaseModel):
    """The result of a scan. `folder` is the last component of the source's path, None for a built-in source.

    Without `classes`, labels and sub-folders of the source are ignored: the data of an unconditional model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=NAME)]
    kind: str
    folder: Annotated[str, Field(pattern=r"^[^/]+$")] | None
    classes: tuple[str, ...]
    entries: Annotated[tuple[Entry, ...], Field(min_length=1)]
    copies: dict[int, int] = {}
    """{position of a copy: position of the first image with the same bytes}; the first images are not listed."""

    @property
    def image_count(self) -> int:
        return sum(entry.images for entry in self.entries)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(KINDS)}")
        if self.folder in (".", "..") or not (self.folder or "_").isprintable():
            raise ValueError(f"folder {self.folder!r} is no name of one")
        if isinstance(KINDS[self.kind], BuiltIn) != (self.folder is None):
            raise ValueError(f"folder {self.folder!r} does not go with kind {self.kind!r}")
        if self.classes != class_order(self.classes):
            raise ValueError("classes are not sorted and distinct")
        for copy, first in self.copies.items():
            if not 0 <= first < copy < self.image_count or first in self.copies:
                raise ValueError(f"image {copy} is no copy of image {first}, which has to be the first of its kind")
        return self


def scan(name: str, source: str | Path, classes: bool = True) -> Manifest:
    """The manifest of a source; see `scanned`."""
    return scanned(name, source, classes)[0]


def scanned(name: str, source: str | Path, classes: bool = True) -> tuple[Manifest, ImageSource]:
    """The manifest of `source`, and `source` opened: "sklearn-digits", or a folder, an archive, several, an LMDB.

    The built-in digits take precedence over a folder of the same name (`./sklearn-digits` is the folder). If `classes`
    is false, labels and sub-folders are ignored. Raises DataError if the name has characters other than letters,
    digits, _ and -, or if the source cannot be listed or holds no images.
    """
    if not re.fullmatch(NAME, name):
        raise DataError(f"{name!r} cannot name a data set; use letters, digits, _ and - only")
    kind, reader = next((kind, reader) for kind, reader in KINDS.items() if reader.matches(str(source)))
    if isinstance(reader, BuiltIn):
        folder, images = None, reader.open(classes)
    else:
        # Not resolve(): under the images' root, a link is found by its own name.
        folder = utf8(Path(os.path.abspath(source)).name, Path(source))
        images = reader.open(Path(source), classes)
    return Manifest(name=name, kind=kind, folder=folder, classes=images.classes, entries=images.entries), images


def check(manifest: Manifest, source: ImageSource, where: str) -> None:
    """Raises DataError, naming the first directories or shards in which `source`, found at `where`, differs."""
    listed = {entry.path: entry for entry in manifest.entries}
    found = {entry.path: entry for entry in source.entries}
    differing = [
        f"{shown(path)} ({_difference(listed.get(path), found.get(path))})"
        for path in sorted(listed.keys() | found.keys())
        if listed.get(path) != found.get(path)
    ]
    if manifest.classes != source.classes:
        differing.append(f"the classes ({len(manifest.classes)} in the manifest, {len(source.classes)} now)")
    if differing:
        raise DataError(
            f"{where}: not what the manifest {manifest.name!r} says: {shortened(differing, NAMED_AT_MOST)};"
            f" restore it, or run `vqlcmd scan {manifest.name} {where}{'' if manifest.classes else ' --no-classes'}`"
            " again"
        )


def shortened(items: list[str], at_most: int) -> str:
    """The items in one line; those beyond the first `at_most` are only counted."""
    more = [f"and {len(items) - at_most} more"] if len(items) > at_most else []
    return "; ".join(items[:at_most] + more)


def write(manifest: Manifest, path: Path) -> None:
    """Writes the manifest whole or not at all; equal manifests give equal bytes."""
    with atomic_write(path) as side:
        side.write_bytes(_to_bytes(manifest))


def read(path: Path) -> Manifest:
    """The manifest in a file. Raises DataError if the file is missing, or is not a manifest."""
    try:
        return Manifest.model_validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        remedy = f"run `vqlcmd scan {path.stem} FOLDER`{paths.experiment_remedy(path)}"
        raise DataError(f"{path}: no manifest ({error.strerror}); {remedy}") from None
    except ValidationError as error:
        first = error.errors()[0]
        problem = shown(" ".join([".".join(map(str, first["loc"])), first["msg"]]).strip(), 200)
        raise DataError(f"{path}: not a valid manifest: {problem}; run `vqlcmd scan {path.stem} FOLDER`") from None


def digest(manifest: Manifest) -> str:
    """A digest of 16 hexadecimal digits, which changes with anything that the manifest says."""
    return short_digest([_to_bytes(manifest)])


def _to_bytes(manifest: Manifest) -> bytes:
    values = manifest.model_dump(mode="json")
    if not values["copies"]:
        del values["copies"]
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()


def _difference(listed: Entry | None, found: Entry | None) -> str:
    if listed is None:
        return "not in the manifest"
    if found is None:
        return "holds no images now"
    if listed.images != found.images:
        return f"{listed.images} images in the manifest, {found.images} now"
    if listed.bytes != found.bytes:
        return f"{listed.bytes} bytes in the manifest, {found.bytes} now"
    return "other names, sizes or pixels"
