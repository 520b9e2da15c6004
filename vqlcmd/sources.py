"""Where images lie: one class per kind of source, which lists its images in a fixed order and opens one of them."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from vqlcmd.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
ACCEPTED = " ".join(EXTENSIONS)
DIGITS = "sklearn-digits"


class Entry(BaseModel):
    """One directory (later: one shard) of a source: what has to be the same for the images to be the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    images: PositiveInt
    bytes: NonNegativeInt
    digest: str


class ImageSource(Protocol):
    """Images in a fixed order, the same on every machine.

    `classes` are sorted names, empty where there are none; `labels` is int64 [len], positions in `classes` or all 0.
    `name(i)` is the image's name for people, `open(i)` gives a PIL image to be closed by the caller.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    entries: tuple[Entry, ...]

    def __len__(self) -> int: ...
    def name(self, i: int) -> str: ...
    def open(self, i: int) -> Image.Image: ...


class Folder:
    """A folder of images. Its first-level sub-folders are the classes, where the images lie in sub-folders.

    Hidden files and folders are passed over; symbolic links are followed, except back into a folder on the way.
    The digest of a directory covers its file names and sizes, not the contents.
    """

    def __init__(self, folder: Path) -> None:
        """DataError where the folder is missing or unreadable, holds no image, or mixes classes with loose images."""
        files = _files(folder)
        if not files:
            raise DataError(f"{folder}: no images in it; accepted are {ACCEPTED}")
        if "." in files and len(files) > 1:
            loose, nested = min(files["."]), min(path for path in files if path != ".")
            raise DataError(
                f"{folder}: images lie both directly in it (such as {loose}) and in sub-folders (such as {nested});"
                " move the former into a sub-folder of their own, or all of them into one folder"
            )
        self.folder = folder
        self.names = sorted(str(PurePosixPath(path, name)) for path, sizes in files.items() for name in sizes)
        first = [name.partition("/")[0] for name in self.names]
        self.classes = () if "." in files else tuple(sorted(set(first)))
        position = {name: i for i, name in enumerate(self.classes)}
        self.labels = np.array([position.get(name, 0) for name in first], dtype=np.int64)
        self.entries = tuple(
            Entry(path=path, images=len(sizes), bytes=sum(sizes.values()), digest=_listing_digest(sizes))
            for path, sizes in sorted(files.items())
        )

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        return self.names[i]

    def open(self, i: int) -> Image.Image:
        return Image.open(self.folder / self.names[i])


class Digits:
    """The 1,797 handwritten 8x8 digits that come with scikit-learn, their 17 grey levels spread over 0..255."""

    def __init__(self) -> None:
        """DataError where scikit-learn is not installed."""
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise DataError("the digits need scikit-learn; run `pip install 'vqlcmd[demo]'`") from None
        pixels, labels = load_digits(return_X_y=True)
        self.pixels = np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = tuple("0123456789")
        contents = self.pixels.tobytes()
        digest = short_digest([contents, self.labels.astype(np.uint8).tobytes()])
        self.entries = (Entry(path=".", images=len(self.labels), bytes=len(contents), digest=digest),)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, i: int) -> str:
        return f"digit {i}"

    def open(self, i: int) -> Image.Image:
        return Image.fromarray(self.pixels[i])


class BuiltIn(NamedTuple):
    """A kind of source that comes with a package and has no place on the disk."""

    claims: Callable[[str], bool]
    open: Callable[[], ImageSource]


class Located(NamedTuple):
    """A kind of source that lies at a path."""

    claims: Callable[[str], bool]
    open: Callable[[Path], ImageSource]


# The first kind that claims what the user named gets it; a folder of images is what is left.
KINDS: dict[str, BuiltIn | Located] = {
    "digits": BuiltIn(claims=lambda source: source == DIGITS, open=Digits),
    "folder": Located(claims=lambda source: True, open=Folder),
}


def short_digest(parts: Iterable[bytes]) -> str:
    """The first 16 hexadecimal digits of SHA-256 over the parts in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]


def _listing_digest(sizes: dict[str, int]) -> str:
    return short_digest(f"{name}\0{size}\0".encode() for name, size in sorted(sizes.items()))


def _files(folder: Path) -> dict[str, dict[str, int]]:
    """{directory: {file name: bytes}} for the directories that hold images, as posix paths relative to the folder."""
    files: dict[str, dict[str, int]] = {}
    pending: list[tuple[PurePosixPath, frozenset[tuple[int, int]]]] = [(PurePosixPath(), frozenset())]
    try:
        while pending:
            path, above = pending.pop()
            status = os.stat(folder / path)
            identity = (status.st_dev, status.st_ino)
            if identity in above:
                continue
            with os.scandir(folder / path) as items:
                visible = [item for item in items if not item.name.startswith(".")]
            for item in visible:
                item.name.encode()
                if item.is_dir():
                    pending.append((path / item.name, above | {identity}))
                elif item.name.lower().endswith(EXTENSIONS) and (item.is_file() or item.is_symlink()):
                    # A dangling link counts as an empty file, so that reading names it.
                    files.setdefault(str(path), {})[item.name] = item.stat().st_size if item.is_file() else 0
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{folder}: not a folder; name a folder of images ({ACCEPTED})") from None
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror})") from None
    except UnicodeEncodeError as error:
        raise DataError(f"{folder}: the file name {error.object!a} is not UTF-8; rename the file") from None
    return files
