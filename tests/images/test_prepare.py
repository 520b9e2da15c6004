"""One picture of any mode to a square of bytes."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.pictures import RECIPE, RED, WHITE, colours, reopened
from vqlcmd.images.loader import Recipe, prepare
from vqlcmd.runtime.errors import DataError


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1"])
def test_a_white_image_is_white_in_every_mode(mode: str) -> None:
    assert colours(reopened(Image.new("RGBA", (10, 9), "white").convert(mode), "PNG")) == [list(WHITE)]


def test_grey_is_the_same_in_all_three_channels() -> None:
    assert colours(reopened(Image.new("L", (8, 8), 77), "PNG")) == [[77, 77, 77]]


def test_one_bit_images_become_black_and_white() -> None:
    checkers = Image.fromarray((np.indices((8, 8)).sum(axis=0) % 2 == 0).astype(np.uint8) * 255).convert("1")
    assert colours(reopened(checkers, "PNG")) == [[0, 0, 0], list(WHITE)]


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (32768, 128), (40000, 156), (65535, 255)])
@pytest.mark.parametrize(("dtype", "file_format"), [("uint16", "PNG"), ("uint16", "PPM"), ("int32", "TIFF")])
def test_sixteen_bit_images_are_scaled_and_not_clipped(dtype: str, file_format: str, value: int, expected: int) -> None:
    image = reopened(Image.fromarray(np.full((8, 8), value, dtype)), file_format)
    assert image.mode.startswith("I")
    assert colours(image) == [[expected] * 3]


@pytest.mark.parametrize(("white", "half", "expected"), [(1, 0.5, 128), (255, 100, 100), (65535, 32768, 128)])
def test_float_images_take_the_smallest_range_that_holds_them(white: float, half: float, expected: int) -> None:
    values = np.full((8, 8), half, np.float32)
    values[4:] = white
    assert colours(reopened(Image.fromarray(values), "TIFF")) == [[expected] * 3, list(WHITE)]


@pytest.mark.parametrize("value", [-1.0, 70000.0, float("nan")])
def test_float_values_without_a_range_are_an_error(value: float) -> None:
    with pytest.raises(DataError, match=r"values from .* 0\.\.65535"):
        prepare(Image.fromarray(np.full((8, 8), value, np.float32)), RECIPE)


def test_a_cmyk_jpeg_keeps_its_colour() -> None:
    image = reopened(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    assert image.mode == "CMYK"
    assert np.abs(prepare(image, RECIPE).astype(int) - np.reshape(RED, (3, 1, 1))).max() <= 4


def test_transparent_pixels_are_white_and_half_transparent_ones_are_mixed_with_it() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.paste((255, 0, 0, 128), (0, 0, 8, 4))
    assert colours(reopened(image, "PNG")) == [[255, 127, 127], list(WHITE)]


def test_transparent_grey_is_white() -> None:
    assert colours(reopened(Image.new("LA", (8, 8), (40, 0)), "PNG")) == [list(WHITE)]


@pytest.mark.parametrize(("mode", "colour", "key"), [("RGB", (0, 0, 255), (0, 0, 255)), ("L", 40, 40)])
def test_a_colour_declared_transparent_is_white(mode: str, colour: float | tuple[float, ...], key: object) -> None:
    assert colours(reopened(Image.new(mode, (8, 8), colour), "PNG", transparency=key)) == [list(WHITE)]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_a_palette_with_transparency_becomes_its_colours_over_white(transparency: int | bytes) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([*RED, 0, 0, 255])
    image.paste(1, (0, 0, 4, 8))
    image = reopened(image, "PNG", transparency=transparency)
    assert image.mode == "P"
    assert colours(image) == [list(RED), list(WHITE)]


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(file_format: str) -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), (0, 255, 0))
    image = reopened(first, file_format, save_all=True, append_images=[second], lossless=True)
    assert getattr(image, "n_frames", 1) == 2
    assert colours(image) == [list(RED)]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF"])
def test_a_rotated_photograph_is_turned_upright(file_format: str, orientation: int) -> None:
    """Pillow turns a TIFF itself while loading it: turning it twice would be as wrong as never."""
    to_rgb = np.zeros((16, 16), np.uint8)
    to_rgb[:8, :8], to_rgb[:8, 8:] = 255, 128
    stored = {
        1: to_rgb,
        2: to_rgb[:, ::-1],
        3: to_rgb[::-1, ::-1],
        4: to_rgb[::-1],
        5: to_rgb.T,
        6: np.rot90(to_rgb),
        7: to_rgb[::-1, ::-1].T,
        8: np.rot90(to_rgb, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = prepare(reopened(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif), RECIPE)
    corners = pixels[0, [1, 1, -2, -2], [1, -2, 1, -2]].astype(int)
    assert np.abs(corners - [255, 128, 0, 0]).max() <= 8


def test_the_cut_is_centred_at_whole_pixels_for_wide_and_tall_images() -> None:
    ramp = np.tile(np.arange(24, dtype=np.uint8) * 10, (10, 1))
    wide = prepare(Image.fromarray(ramp), Recipe(size=10, resize="bilinear"))
    tall = prepare(Image.fromarray(np.ascontiguousarray(ramp.T)), Recipe(size=10, resize="bilinear"))
    np.testing.assert_array_equal(wide[0, 0], np.arange(70, 170, 10))
    np.testing.assert_array_equal(tall, wide.transpose(0, 2, 1))


def test_making_an_image_smaller_averages_its_pixels() -> None:
    checkers = Image.fromarray((np.indices((64, 64)).sum(axis=0) % 2 * 200).astype(np.uint8))
    for resize in ("bilinear", "bicubic", "box", "lanczos"):
        pixels = prepare(checkers, Recipe(size=8, resize=resize)).astype(int)
        assert np.abs(pixels - 100).max() <= 3, resize


def test_the_filter_is_the_named_one() -> None:
    edge = np.zeros((4, 4), np.uint8)
    edge[:, 2:] = 200
    enlarged = {r: prepare(Image.fromarray(edge), Recipe(8, r)) for r in ("bilinear", "bicubic", "box", "lanczos")}
    assert np.unique(enlarged["box"]).tolist() == [0, 200]
    assert enlarged["bilinear"].max() == 200
    assert enlarged["bicubic"].max() > 200
    assert (enlarged["lanczos"] != enlarged["bicubic"]).any()


def test_small_images_are_enlarged_but_a_side_of_one_pixel_is_an_error() -> None:
    pixels = prepare(Image.new("RGB", (2, 3), RED), RECIPE)
    assert (pixels.shape, pixels.dtype) == ((3, 8, 8), np.uint8)
    with pytest.raises(DataError, match="1 x 30 pixels; each side needs 2"):
        prepare(Image.new("RGB", (1, 30)), RECIPE)
    with pytest.raises(DataError, match="2 x 300 pixels; one side may be 100 times the other"):
        prepare(Image.new("RGB", (2, 300)), RECIPE)
