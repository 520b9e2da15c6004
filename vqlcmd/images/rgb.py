"""A picture of any mode -> RGB with 8 bits, upright, over a background."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from PIL.ImageFile import ImageFile

from vqlcmd.images.formats import open_picture, quiet, reason
from vqlcmd.runtime.errors import DataError

SMALLEST_SIDE = 2
LONGEST_SHAPE = 100
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Possible values of white. Pillow's integer images are 16-bit files; a float file does not say, so its values decide.
WHITES = {"I": (65535,), "F": (1, 255, 65535)}
TWELVE_BITS = 4095
# A PNG declares its transparent colour as stored. Pillow scales the pixels to 8 bits, but not that colour.
KEY_SCALES = {"L;2": 85.0, "L;4": 17.0, "RGB;16B": 1 / 256}
# Tags of TIFF: BitsPerSample, PhotometricInterpretation, MaxSampleValue.
BITS, PHOTOMETRIC, MOST = 258, 262, 281
WHITE_IS_ZERO = 0


def read_picture(path: Path, background: str) -> Image.Image:
    """Reads the picture in a file and converts it by `to_rgb`. Raises DataError, naming the file, whatever is wrong."""
    try:
        with quiet(), open_picture(path) as image:
            return to_rgb(image, background)
    except Exception as error:  # damaged files make Pillow raise all kinds of exceptions
        raise DataError(f"{path} cannot be read as a picture: {reason(error)}") from None


def to_rgb(image: Image.Image, background: str) -> Image.Image:
    """Converts an image to RGB with 8 bits, upright, over `background` (a colour Pillow knows by name, or #rrggbb).

    Of an animation, the current frame (after opening, the first). Raises DataError if a side is below 2 pixels, if one
    side is more than 100 times the other, or if the values are out of range or their range is unknown.
    """
    if min(image.size) < SMALLEST_SIDE:
        raise DataError(f"{image.width} x {image.height} pixels; each side needs {SMALLEST_SIDE} or more")
    if max(image.size) > LONGEST_SHAPE * min(image.size):
        raise DataError(
            f"{image.width} x {image.height} pixels; one side may be {LONGEST_SHAPE} times the other at most"
        )
    scale = KEY_SCALES.get(str(image.tile[0][3])) if isinstance(image, ImageFile) and image.tile else None
    image.load()
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    if scale is not None and "transparency" in image.info:
        key = image.info["transparency"]
        image.info["transparency"] = (
            int(key * scale) if isinstance(key, int) else tuple(int(sample * scale) for sample in key)
        )
    image = _convert(image, background)
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def _convert(image: Image.Image, background: str) -> Image.Image:
    if image.mode[0] in WHITES:
        image = _to_8_bits(image)
    elif 16 in _tag(image, BITS):
        _raise_if_dark(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """A greyscale image, 0 black and `_white` white; with an alpha mask if the file declares a transparent value."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    white = _white(image, low, high)
    if not 0 <= low <= high <= white:
        raise DataError(f"values from {low:g} to {high:g}; they should lie in 0..{white}")
    if values.dtype.kind in "iu" and white < 2**16:
        # By a lookup table, since a copy in floats would take several times the memory.
        grey = np.rint(np.arange(white + 1, dtype=np.float32) * (255 / white)).astype(np.uint8)[values]
    else:
        grey = np.rint(values.astype(np.float32) * (255 / white)).astype(np.uint8)
    if WHITE_IS_ZERO in _tag(image, PHOTOMETRIC):
        grey = 255 - grey
    picture = Image.fromarray(grey)
    if "transparency" in image.info:
        picture.putalpha(Image.fromarray((values != image.info["transparency"]).astype(np.uint8) * 255))
    return picture


def _white(image: Image.Image, low: float, high: float) -> int:
    """The value of white: the declared one, or else the smallest usual one that no value exceeds, or the largest.

    Raises DataError if a TIFF of 16 bits looks like one of 12 or fewer without declaring it: it would be almost black,
    or too bright.
    """
    declared = [most for most in _tag(image, MOST) if most > 0] or [TWELVE_BITS] * (12 in _tag(image, BITS))
    if declared:
        return declared[0]
    if image.mode[0] == "I" and _tag(image, BITS) and 0 < high <= TWELVE_BITS:
        raise DataError(_UNCLEAR.format(f"values up to {high:g}"))
    return next((white for white in WHITES[image.mode[0]] if low >= 0 and high <= white), WHITES[image.mode[0]][-1])


_UNCLEAR = (
    "{} in a TIFF of 16 bits, as of a camera with 12, and nothing in it says what is white;"
    " set its tag MaxSampleValue, or save it with 8 bits"
)


def _raise_if_dark(image: Image.Image) -> None:
    """Raises DataError for 16-bit colours that look like 12-bit ones.

    Pillow keeps the upper 8 bits, and those would use only 4 of them.
    """
    colours = image.getextrema()[:3]
    highest = max(high for _, high in colours if isinstance(high, int))  # pyright: ignore[reportGeneralTypeIssues]
    declared = max(_tag(image, MOST), default=65535)
    if declared < 65535 or 0 < highest <= TWELVE_BITS >> 8:
        raise DataError(_UNCLEAR.format(f"colours up to {min(declared, (highest + 1) * 256 - 1)}"))


def _tag(image: Image.Image, number: int) -> tuple[int, ...]:
    """The integers in a TIFF's tag; () if there are none, or if the file is not a TIFF."""
    value = getattr(image, "tag_v2", {}).get(number, ())
    return tuple(each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, int))
