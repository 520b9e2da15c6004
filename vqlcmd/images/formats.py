"""Which files are pictures, and how one is opened: by its content, in one of these formats, and within a limit."""

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
"""Pillow's names. It knows others, one of which (EPS) starts a program."""
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
"""Endings of pictures that are not read, which a scan counts."""
# Pillow keeps a colour in four bytes. Deep and transparent pictures are converted on the way, beside the original.
BYTES, BYTES_CONVERTED = 4, 8


def open_picture(file: Path | bytes) -> Image.Image:
    """The picture in a file or in its bytes, not yet decoded. Pillow's exceptions where it is none of FORMATS.

    DataError where it would take more than $VQLCMD_PICTURE_MB, by pixels times bytes, whatever the file's own size.
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
    """Without Pillow's warnings about a picture's metadata, which say nothing of its pixels."""
    with warnings.catch_warnings(action="ignore"):
        yield


def reason(error: Exception) -> str:
    """Why a picture cannot be read, in one line without the file's name."""
    if isinstance(error, UnidentifiedImageError):  # whose own text is the file's full path
        return "not an image in an accepted format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return shown(" ".join(str(error).split()) or type(error).__name__, 300)


def is_picture(name: str) -> bool:
    """Whether a file's name has an accepted ending."""
    return name.lower().endswith(EXTENSIONS)


class LeftOut:
    """How many files a listing passed over that look like pictures, by their ending."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def note(self, name: str) -> None:
        """Counts the file if its name ends as that of a picture which is not read."""
        ending = os.path.splitext(name)[1].lower()
        if ending in LEFT_OUT:
            self.counts[ending] = self.counts.get(ending, 0) + 1


@cache
def _readable() -> list[str]:
    """FORMATS, as far as this Pillow was built with them."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Which counts pixels whatever they take, and only warns up to twice its number."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
