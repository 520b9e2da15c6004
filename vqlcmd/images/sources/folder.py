"""A folder of images, with or without sub-folders: ImageNet unpacked, FFHQ, your own pictures."""

import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from vqlcmd.images.formats import ACCEPTED, LeftOut, is_picture, open_picture
from vqlcmd.images.sources.listing import (
    Entry,
    Labels,
    Names,
    first_folder,
    mixed,
    no_classes,
    raise_if_beyond,
    raise_if_unfit,
    short_digest,
)
from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import DataError


class Folder:
    """A folder of images. If they lie in sub-folders, those of the first level are the classes.

    Hidden files and folders are skipped; symbolic links are followed, except back to a folder above. The digest of a
    directory covers its file names and sizes, not the contents.
    """

    def __init__(self, folder: Path, classes: bool = True) -> None:
        """Raises DataError if the folder is missing, unreadable or without images, or mixes classes with loose ones."""
        self.folder = folder
        entries: list[Entry] = []
        labels, left_out = Labels(), LeftOut()
        try:
            self._names = Names(_labelled(_walk(folder, "", frozenset(), entries, left_out), labels, folder))
        except RecursionError:
            raise DataError(f"{folder}: hundreds of folders within each other; name one further down") from None
        self.left_out = left_out.counts
        if not entries:
            raise DataError(
                f"{folder}: no images in it; accepted are {ACCEPTED}, or .tar or .zip archives of them, or an LMDB"
            )
        self.entries = tuple(sorted(entries, key=lambda entry: entry.path))
        loose = any(entry.path == "." for entry in entries)
        if classes and loose and len(entries) > 1:
            example = next(self.name(i) for i in range(len(self)) if "/" not in self.name(i))
            raise DataError(f"{folder}: {mixed(example, min(e.path for e in entries if e.path != '.'))}")
        self.classes, self.labels = labels.ordered() if classes and not loose else no_classes(len(self))

    def __len__(self) -> int:
        return len(self._names)

    def name(self, i: int) -> str:
        return self._names[i].decode()

    def open(self, i: int) -> Image.Image:
        return open_picture(self.folder / self.name(i))

    def contents(self, i: int) -> bytes:
        raise_if_beyond(os.path.getsize(self.folder / self.name(i)), paths.picture_memory())
        return (self.folder / self.name(i)).read_bytes()


def _labelled(names: Iterator[str], labels: Labels, folder: Path) -> Iterator[bytes]:
    for name in names:
        raise_if_unfit(name, folder)
        labels.append(first_folder(name))
        yield name.encode()


def _walk(
    folder: Path, below: str, above: frozenset[tuple[int, int]], entries: list[Entry], left_out: LeftOut
) -> Iterator[str]:
    """Yields the paths of the images below `folder`/`below`, sorted as text; adds an entry for each directory.

    Only the listings of the directories on the current path are in memory, not those of all files.
    """
    path = folder / below
    try:
        status = os.stat(path)
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        sizes, inner = _listing(path, left_out)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}: not a folder; name a folder of images ({ACCEPTED})") from None
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror})") from None
    except UnicodeEncodeError as error:
        raise DataError(f"{folder}: the file name {error.object!a} is not UTF-8; rename the file") from None
    if sizes:
        listing = (f"{name}\0{size}\0".encode() for name, size in sorted(sizes.items()))
        name = below.removesuffix("/") or "."
        entries.append(Entry(path=name, images=len(sizes), bytes=sum(sizes.values()), digest=short_digest(listing)))
    # A folder sorts with its slash, so that a.png comes before a/1.png.
    for name in sorted([*sizes, *inner]):
        if name.endswith("/"):
            yield from _walk(folder, below + name, above | {identity}, entries, left_out)
        else:
            yield below + name


def _listing(path: Path, left_out: LeftOut) -> tuple[dict[str, int], list[str]]:
    """The images of a directory as {name: bytes}, and its sub-folders, each with a slash at the end."""
    sizes: dict[str, int] = {}
    inner = []
    with os.scandir(path) as items:
        for item in items:
            if item.name.startswith("."):
                continue
            item.name.encode()
            if item.is_dir():
                inner.append(f"{item.name}/")
            elif not is_picture(item.name):
                left_out.note(item.name)
            elif item.is_file() or item.is_symlink():
                # A dangling link counts as an empty file, so that reading it fails and names it.
                sizes[item.name] = item.stat().st_size if item.is_file() else 0
    return sizes, inner
