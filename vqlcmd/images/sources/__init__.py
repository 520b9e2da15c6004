"""Image sources: one class per kind, which lists its images in a fixed order and opens them one at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vqlcmd.images.sources import archives, lmdb, tar, torchvision_sets
from vqlcmd.images.sources.archives import Archives
from vqlcmd.images.sources.digits import DIGITS, Digits
from vqlcmd.images.sources.folder import Folder
from vqlcmd.images.sources.listing import Entry, ImageSource, class_order, short_digest
from vqlcmd.images.sources.lmdb import Lmdb
from vqlcmd.images.sources.tar import Tar
from vqlcmd.images.sources.zip import Zip

__all__ = ["DIGITS", "KINDS", "BuiltIn", "Entry", "ImageSource", "Located", "class_order", "short_digest"]


class BuiltIn(NamedTuple):
    """A kind of source that comes with a package and has no path. `open` takes whether to read classes."""

    matches: Callable[[str], bool]
    open: Callable[[bool], ImageSource]


class Located(NamedTuple):
    """A kind of source at a path. `open` takes the path, and whether to read classes.

    `place` maps a path to what must exist on disk, for kinds whose paths are only names.
    """

    matches: Callable[[str], bool]
    open: Callable[[Path, bool], ImageSource]
    place: Callable[[Path], Path] = lambda path: path


# The first kind that matches the user's source is used; a folder of images matches anything, so it comes last.
KINDS: dict[str, BuiltIn | Located] = {
    "digits": BuiltIn(matches=lambda source: source == DIGITS, open=Digits),
    "torchvision": Located(
        matches=torchvision_sets.matches,
        open=torchvision_sets.TorchvisionSet,
        place=lambda path: path.with_name(torchvision_sets.FOLDER),
    ),
    "lmdb": Located(matches=lmdb.matches, open=Lmdb),
    "tar": Located(
        matches=lambda source: archives.matches(source, ".tar") or tar.is_compressed(source),
        open=lambda path, classes: Archives(path, Tar(), classes),
    ),
    "zip": Located(
        matches=lambda source: archives.matches(source, ".zip"),
        open=lambda path, classes: Archives(path, Zip(), classes),
    ),
    "folder": Located(matches=lambda source: True, open=Folder),
}
