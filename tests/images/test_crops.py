"""Recipes from a picture to squares, against plain re-implementations."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.pictures import RECIPE
from vqlcmd.images.crops import CROPS, FILTERS, Recipe, crop_views
from vqlcmd.images.loader import prepare

Kernel = Callable[[float], float]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise over a ramp, so that both filters and places show."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(0, 120, width)[None, :, None] + np.linspace(0, 60, height)[:, None, None]
    return Image.fromarray((ramp + random.integers(0, 75, (height, width, 3))).astype(np.uint8))


def box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def triangle(x: float) -> float:
    return max(0.0, 1 - abs(x))


def cubic(x: float) -> float:
    """Keys' with a = -1/2."""
    x = abs(x)
    return 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def lanczos(x: float) -> float:
    return float(np.sinc(x) * np.sinc(x / 3)) if abs(x) < 3 else 0.0


KERNELS: dict[str, tuple[Kernel, float]] = {
    "box": (box, 0.5),
    "bilinear": (triangle, 1),
    "bicubic": (cubic, 2),
    "lanczos": (lanczos, 3),
}


def resample(values: np.ndarray, size: int, kernel: Kernel, radius: float) -> np.ndarray:
    """Along the first axis to `size`, the kernel as wide as a new pixel where that is larger than an old one."""
    scale = len(values) / size
    width = max(scale, 1.0)
    made = []
    for i in range(size):
        center = (i + 0.5) * scale
        near = range(
            max(0, math.floor(center - radius * width - 1)), min(len(values), math.ceil(center + radius * width + 1))
        )
        weights = np.array([kernel((j + 0.5 - center) / width) for j in near])
        made.append(np.tensordot(weights / weights.sum(), values[near.start : near.stop], axes=1))
    return np.stack(made)


def resized(pixels: np.ndarray, width: int, height: int, how: str) -> np.ndarray:
    """float64 [height, width, 3], rounded to 0..255 after each of two passes, as 8 bits are."""
    for size in (width, height):
        pixels = np.clip(np.rint(resample(pixels.swapaxes(0, 1), size, *KERNELS[how])), 0, 255)
    return pixels


def plain_adm(pixels: np.ndarray, size: int) -> np.ndarray:
    """ADM's square as its text describes it."""
    while min(pixels.shape[:2]) // 2 >= size:
        pixels = resized(pixels, pixels.shape[1] // 2, pixels.shape[0] // 2, "box")
    factor = size / min(pixels.shape[:2])
    pixels = resized(pixels, round(pixels.shape[1] * factor), round(pixels.shape[0] * factor), "bicubic")
    top, left = (math.floor((side - size) / 2) for side in pixels.shape[:2])
    return pixels[top : top + size, left : left + size]


def hwc(image: Image.Image, recipe: Recipe, position: int = 0) -> list[np.ndarray]:
    return [square.transpose(1, 2, 0).astype(float) for square in crop_views(image, recipe, position)]


@pytest.mark.parametrize("sides", [(40, 31), (31, 40), (70, 150), (12, 17)])
@pytest.mark.parametrize("resize", FILTERS)
def test_the_middle_of_a_resized_picture_is_that_of_a_plain_filter(resize: str, sides: tuple[int, int]) -> None:
    image = picture(*sides)
    width, height = (round(side * 16 / min(sides)) for side in sides)
    top, left = round((height - 16) / 2), round((width - 16) / 2)
    expected = resized(np.asarray(image).astype(float), width, height, resize)[top : top + 16, left : left + 16]
    (found,) = hwc(image, Recipe(16, resize))  # pyright: ignore[reportArgumentType]
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("sides", [(64, 48), (97, 131), (16, 16), (31, 40), (200, 33), (10, 12), (32, 33)])
def test_adm_halves_by_box_then_goes_the_rest_by_bicubic(sides: tuple[int, int]) -> None:
    image = picture(*sides)
    (found,) = hwc(image, Recipe(16, "lanczos", "adm"))
    expected = plain_adm(np.asarray(image).astype(float), 16)
    assert np.abs(found - expected).max() <= 2, "two roundings to bytes, or more"
    for resize in FILTERS:
        assert (hwc(image, Recipe(16, resize, "adm"))[0] == found).all(), "resize has no part in it"  # pyright: ignore


def test_adm_differs_from_the_plain_bicubic_and_from_other_middles() -> None:
    image = picture(150, 131)
    adm, center = (hwc(image, Recipe(16, "bicubic", crop))[0] for crop in ("adm", "center"))
    assert np.abs(adm - center).max() > 5
    odd = Image.fromarray(np.tile(np.arange(19, dtype=np.uint8), (16, 1))).convert("RGB")
    starts = {crop: int(hwc(odd, Recipe(16, "bicubic", crop))[0][0, 0, 0]) for crop in ("adm", "center")}
    assert starts == {"adm": 1, "center": 2}, "half a pixel goes down in the one and to the even side in the other"


@pytest.mark.parametrize("sides", [(64, 48), (23, 30), (17, 17)])
def test_ten_crop_is_corners_and_middle_of_the_wider_square_then_those_of_its_mirror_image(
    sides: tuple[int, int],
) -> None:
    """As torchvision does it: the mirror image is cut, and not the cuts mirrored."""
    image = picture(*sides)
    (wide,) = hwc(image, Recipe(17, "box", "adm"))
    expected = []
    for seen in (wide, np.fliplr(wide)):
        expected += [seen[:16, :16], seen[:16, -16:], seen[-16:, :16], seen[-16:, -16:], seen[:16, :16]]
    found = hwc(image, Recipe(16, "box", "ten_crop"))
    assert len(found) == 10
    for square, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(square, wanted)


def test_the_second_five_of_ten_crop_are_mirror_images_of_the_first() -> None:
    """Of an even margin, so that the middle is in the middle."""
    first, second = crop_views(picture(90, 70), Recipe(20, "box", "ten_crop"), 0).reshape(2, 5, 3, 20, 20)
    for corner, mirrored in enumerate([1, 0, 3, 2, 4]):
        np.testing.assert_array_equal(second[corner], first[mirrored, :, :, ::-1])
    assert len({square.tobytes() for square in [*first, *second]}) == 10


@pytest.mark.parametrize(("size", "side"), [(256, 281), (16, 17), (10, 11), (512, 563)])
def test_ten_crop_cuts_from_a_tenth_more_rounded_down(size: int, side: int) -> None:
    ramp = np.tile((np.arange(side) % 251).astype(np.uint8), (side, 1))
    found = crop_views(Image.fromarray(ramp).convert("RGB"), Recipe(size, "box", "ten_crop"), 0)
    np.testing.assert_array_equal(found[1, 0, 0], ramp[0, side - size :])


def test_a_random_crop_is_a_cut_of_the_resized_picture_at_a_place_that_the_position_gives() -> None:
    image = picture(90, 30)
    wide = np.asarray(image.resize((48, 16), Image.Resampling.BILINEAR))
    recipe = Recipe(16, "bilinear", "random")
    cuts = {wide[:, left : left + 16].tobytes(): left for left in range(33)}
    places = [cuts[crop_views(image, recipe, position)[0].transpose(1, 2, 0).tobytes()] for position in range(600)]
    assert set(places) == set(range(33)), "both ends and all between"
    assert np.abs(np.bincount(places) - 600 / 33).max() < 5 * (600 / 33) ** 0.5
    assert [cuts[crop_views(image, recipe, p)[0].transpose(1, 2, 0).tobytes()] for p in (5, 3)] == [
        places[5],
        places[3],
    ]


def test_a_random_crop_of_a_tall_picture_moves_up_and_down() -> None:
    image = picture(16, 40)
    found = {crop_views(image, Recipe(16, "box", "random"), position).tobytes() for position in range(60)}
    tall = np.asarray(image)
    assert found <= {tall[top : top + 16].transpose(2, 0, 1).tobytes() for top in range(25)}
    assert len(found) > 15


@pytest.mark.parametrize("sides", [(61, 45), (12, 9), (64, 128)])
def test_without_antialiasing_a_new_pixel_mixes_the_four_around_its_center(sides: tuple[int, int]) -> None:
    image = picture(*sides)
    pixels = np.asarray(image).astype(float)
    width, height = (round(side * 16 / min(sides)) for side in sides)
    expected = np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            v, u = ((i + 0.5) * side / size - 0.5 for i, side, size in ((y, sides[1], height), (x, sides[0], width)))
            v, u = min(max(v, 0), sides[1] - 1), min(max(u, 0), sides[0] - 1)
            top, left = int(v), int(u)
            below, right = min(top + 1, sides[1] - 1), min(left + 1, sides[0] - 1)
            upper = pixels[top, left] * (1 - u + left) + pixels[top, right] * (u - left)
            lower = pixels[below, left] * (1 - u + left) + pixels[below, right] * (u - left)
            expected[y, x] = np.floor(upper * (1 - v + top) + lower * (v - top) + 0.5)
    top, left = round((height - 16) / 2), round((width - 16) / 2)
    (found,) = hwc(image, Recipe(16, "bilinear_no_antialias"))
    wrong = found != expected[top : top + 16, left : left + 16]
    # A sum that is a half in one precision may be a little less in another.
    assert wrong.mean() < (0.01 if sides[0] % 16 else 1e-9)
    assert np.abs(found - expected[top : top + 16, left : left + 16]).max() <= 1
    if min(sides) > 32:
        assert np.abs(found - hwc(image, Recipe(16, "bilinear"))[0]).max() > 10


@pytest.mark.parametrize("crop", CROPS)
def test_a_picture_of_the_right_size_stays_as_it_is(crop: str) -> None:
    side = 17 if crop == "ten_crop" else 16
    image = picture(side, side)
    for resize in (*FILTERS, "bilinear_no_antialias"):
        recipe = Recipe(16, resize, crop)  # pyright: ignore[reportArgumentType]
        found = crop_views(image, recipe, 3)
        assert (found.shape, found.dtype) == ((recipe.views, 3, 16, 16), np.uint8)
        np.testing.assert_array_equal(found[0], np.asarray(image).transpose(2, 0, 1)[:, :16, :16])


def test_one_square_stands_for_an_image_from_elsewhere_whatever_the_recipe() -> None:
    image = picture(50, 30)
    of = {crop: prepare(image, Recipe(16, "bicubic", crop)) for crop in ("center", "random", "adm", "ten_crop")}
    assert (of["random"] == of["center"]).all()
    assert (of["ten_crop"] == of["adm"]).all()
    assert (Recipe(16, "box", "random").one_view().crop, Recipe(16, "box", "ten_crop").one_view().views) == (
        "random",
        1,
    )
    assert RECIPE.one_view() == RECIPE.deterministic() == RECIPE
