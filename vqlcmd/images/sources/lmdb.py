"""LSUN as distributed: an LMDB whose values are the bytes of images, in the order of their keys."""

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from vqlcmd.images.formats import open_picture
from vqlcmd.images.sources.listing import Entry, Names, no_classes, raise_if_unfit, short_digest, text_of
from vqlcmd.runtime.errors import DataError

if TYPE_CHECKING:
    from lmdb import Environment

FILE = "data.mdb"


class Lmdb:
    """The images of an LMDB, which has no classes.

    Each process opens it when it first reads an image, without a lock file. The sizes of values cannot be known without
    reading all of them, so the digest covers the keys and the number of pages of each kind.
    """

    def __init__(self, folder: Path, classes: bool = True) -> None:
        """Raises DataError if the package lmdb is not installed, or if the file is damaged, cut short or empty."""
        package = _package()
        _close_kept()
        try:
            # No read-ahead: between the keys lie the images, which are not needed here.
            with _opened(folder, readahead=False) as environment, environment.begin(buffers=True) as transaction:
                status = environment.stat()
                self._keys = Names(bytes(key) for key in transaction.cursor().iternext(values=False))
        except package.Error as error:
            raise DataError(f"{folder}: not an LMDB that can be read ({error}); fetch it again") from None
        if not len(self._keys):
            raise DataError(f"{folder}: no images in this LMDB")
        for i in range(len(self)):
            raise_if_unfit(text_of(self._keys[i]), folder)
        self._folder = folder
        self.left_out: dict[str, int] = {}
        self.classes, self.labels = no_classes(len(self))
        pages = [status["branch_pages"], status["leaf_pages"], status["overflow_pages"]]
        parts = (b"%d\0%s\0" % (len(key), key) for key in self._keys)
        digest = short_digest(itertools.chain([b"%d\0" % count for count in pages], parts))
        self.entries = (Entry(path=FILE, images=len(self), bytes=sum(pages) * status["psize"], digest=digest),)

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, i: int) -> str:
        return f"{FILE}/{text_of(self._keys[i])}"

    def open(self, i: int) -> Image.Image:
        return open_picture(self.contents(i))

    def contents(self, i: int) -> bytes:
        with _environment(self._folder).begin() as transaction:
            contents = transaction.get(self._keys[i])
        if contents is None:
            raise DataError("it is no longer in the LMDB")
        return contents


def matches(source: str) -> bool:
    """Whether `source` is a folder that contains an LMDB."""
    return os.path.isfile(os.path.join(source, FILE))


_kept: "dict[tuple[int, int], Environment]" = {}
"""The environment that this process used last, by the identity of its file: LMDB must not open a file twice."""


def _environment(folder: Path) -> "Environment":
    status = os.stat(folder / FILE)
    identity = (status.st_dev, status.st_ino)
    if identity not in _kept:
        # Close it first: another file may have replaced the one that is open.
        _close_kept()
        _kept[identity] = _opened(folder, readahead=True)
    return _kept[identity]


def _close_kept() -> None:
    while _kept:
        _kept.popitem()[1].close()


# A child may neither use an environment inherited from its parent nor open the same file again.
os.register_at_fork(before=_close_kept)


def _opened(folder: Path, readahead: bool) -> "Environment":
    environment = _package().open(str(folder), readonly=True, lock=False, create=False, readahead=readahead)
    # Reading a page past the end of the file would kill the process with a bus error.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    length = os.path.getsize(folder / FILE)
    if length < needed:
        environment.close()
        raise DataError(f"{folder}: cut short: {FILE} has {length} of {needed} bytes; fetch it again")
    return environment


def _package() -> Any:
    try:
        import lmdb
    except ImportError:
        raise DataError("an LMDB needs the package lmdb; run `pip install 'vqlcmd[lsun]'`") from None
    return lmdb
