"""Which files are pictures, and how one is opened: by its content, in an accepted format, within a memory limit."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import DataError, shown

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
"""Accepted formats, by Pillow's names. Pillow knows others, one of which (EPS) starts a program."""
EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
ACCEPTED = " ".join(EXTENSIONS)
LEFT_OUT = (
    *(
        ".heic",
        ".heif",
        ".jxl",
        ".jp2",
        ".j2k",
        ".jpx",
        ".apng",
        ".ico",
        ".tga",
        ".psd",
        ".svg",
        ".eps",
        ".exr",
        ".hdr",
    ),
    *(".pfm", ".qoi", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".xcf", ".pcx", ".dcm"),
)
"""Extensions of picture formats that are not read; a scan counts such files."""
# Bytes per pixel: Pillow takes four. Deep and transparent pictures are converted, and both versions are in memory.
BYTES, BYTES_CONVERTED = 4, 8


def open_picture(file: Path | bytes) -> Image.Image:
    """Opens the picture in a file, or in the bytes of one, without decoding it.

    Raises Pillow's exceptions if it is in none of FORMATS, and DataError if it would take more memory than
    $VQLCMD_PICTURE_MB: pixels times bytes per pixel, whatever the size of the file.
    """
    limit = paths.picture_memory()
    with _without_pillows_limit(), quiet():
        image = Image.open(BytesIO(file) if isinstance(file, bytes) else file, formats=_readable())
    deep = image.mode.partition(";")[0] in ("I", "F")
    needed = image.width * image.height * (BYTES_CONVERTED if deep or image.has_transparency_data else BYTES)
    if needed > limit:
        image.close()
        raise DataError(
            f"{image.width} x {image.height} pixels{' of more than 8 bits' if deep else ''} take {needed // 10**6} MB,"
            f" above the limit of {limit // 10**6}; set VQLCMD_PICTURE_MB to more, or make it smaller"
        )
    return image


@contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings: those of Pillow are about a picture's metadata, not about its pixels."""
    with warnings.catch_warnings(action="ignore"):
        yield


def reason(error: Exception) -> str:
    """Why a picture cannot be read, in one line without the file's name."""
    if isinstance(error, UnidentifiedImageError):  # its own message is the file's full path
        return "not an image in an accepted format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return shown(" ".join(str(error).split()) or type(error).__name__, 300)


def is_picture(name: str) -> bool:
    """Whether a file's name has an accepted ending."""
    return name.lower().endswith(EXTENSIONS)


class LeftOut:
    """Counts, by extension, the files that a listing skipped although they look like pictures."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def note(self, name: str) -> None:
        """Counts the file if its extension is one of LEFT_OUT."""
        ending = os.path.splitext(name)[1].lower()
        if ending in LEFT_OUT:
            self.counts[ending] = self.counts.get(ending, 0) + 1


@cache
def _readable() -> list[str]:
    """Those of FORMATS that this build of Pillow supports."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Lifts Pillow's own limit, which counts pixels instead of bytes and only warns up to twice its number."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
