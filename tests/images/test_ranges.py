"""Grey and colours of other depths than 8 bits: white and transparent are what the file calls so."""

import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, TiffImagePlugin

from tests.images.test_formats import grey, png
from tests.kinds import folder
from tests.pictures import RECIPE, colours
from tests.pipeline_imports import ROOT
from vqlcmd.images.crops import Recipe
from vqlcmd.images.loader import load_all, prepare
from vqlcmd.runtime.errors import DataError

WHITE = [255] * 3


def tiff(values: np.ndarray, **tags: int | tuple[int, ...]) -> Image.Image:
    """Opened again, with tags t281=... of one's own."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        directory[int(name[1:])] = value
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF", tiffinfo=directory)
    return Image.open(file)


def read(contents: bytes) -> np.ndarray:
    """The picture's own pixels, not resized: uint8 [3, 8, 8]."""
    return prepare(Image.open(io.BytesIO(contents)), Recipe(8, "box"))


def test_a_transparent_value_of_16_bit_grey_is_background_and_its_neighbour_is_not() -> None:
    """It was black on black."""
    rows = grey([1000, 1001, 65535, 0] * 2) * 8
    found = read(png(8, 8, 16, 0, rows, np.array(1000, ">u2").tobytes()))
    assert found[0, 0].tolist() == [255, 4, 255, 0] * 2


def test_a_transparent_colour_of_16_bits_is_background() -> None:
    rows = (b"\0" + np.array([[40000, 0, 0], [0, 40000, 0]] * 4, ">u2").tobytes()) * 8
    found = read(png(8, 8, 16, 2, rows, np.array([40000, 0, 0], ">u2").tobytes()))
    assert found[:, 0, :2].T.tolist() == [WHITE, [0, 156, 0]]


@pytest.mark.parametrize(("depth", "key", "rest"), [(2, 2, [0, 85, 255]), (4, 8, [0, 68, 204]), (1, 1, [0])])
def test_a_transparent_value_of_few_bits_is_background(depth: int, key: int, rest: list[int]) -> None:
    """Pillow spreads the pixels over 0..255, but not what is transparent."""
    levels = {2: [0, 1, 2, 3], 4: [0, 4, 8, 12], 1: [0, 1, 0, 1]}[depth] * 2
    bits = "".join(f"{level:0{depth}b}" for level in levels)
    row = int(bits, 2).to_bytes(len(bits) // 8, "big")
    contents = png(8, 8, depth, 0, (b"\0" + row) * 8, np.array(key, ">u2").tobytes())
    shown = prepare(Image.open(io.BytesIO(contents)), Recipe(8, "box", background="red"))
    assert {tuple(pixel) for pixel in shown.reshape(3, -1).T.tolist()} == {(255, 0, 0), *((n, n, n) for n in rest)}


@pytest.mark.parametrize("most", [1023, 4095, 16383])
def test_white_is_what_the_file_declares(most: int) -> None:
    """Twelve bits in sixteen were almost black."""
    values = np.full((8, 8), most, np.uint16)
    values[4:] = most // 2 + 1
    assert colours(tiff(values, t281=most)) == [[128] * 3, WHITE]


def test_values_above_the_declared_white_are_an_error() -> None:
    with pytest.raises(DataError, match=r"values from 5000 to 5000; they should lie in 0\.\.4095"):
        prepare(tiff(np.full((8, 8), 5000, np.uint16), t281=4095), RECIPE)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_a_tiff_that_looks_like_12_bits_and_does_not_say_so_is_refused(dtype: type) -> None:
    with pytest.raises(
        DataError, match=r"values up to 4000 in a TIFF of 16 bits, as of a camera with 12.*MaxSampleValue"
    ):
        prepare(tiff(np.full((8, 8), 4000, dtype)), RECIPE)
    assert colours(tiff(np.zeros((8, 8), dtype))) == [[0] * 3]
    assert colours(tiff(np.full((8, 8), 4096, dtype))) == [[16] * 3]


def test_zero_is_white_where_the_file_says_so() -> None:
    assert colours(tiff(np.full((8, 8), 65535, np.uint16), t262=0)) == [[0] * 3]
    assert colours(tiff(np.full((8, 8), 0, np.uint16), t262=0)) == [WHITE]


def colours_of_16_bits(value: int) -> Image.Image:
    """A TIFF with three channels of 16 bits, which Pillow reads but does not write."""
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, entry in {256: 8, 257: 8, 258: (16,) * 3, 259: 1, 262: 2, 277: 3, 278: 8, 279: 8 * 8 * 6}.items():
        directory[tag] = entry
    # Pillow counts a strip's place from the end of what it writes here.
    directory[273] = 0
    header = b"II*\0" + (8).to_bytes(4, "little") + directory.tobytes(8)
    return Image.open(io.BytesIO(header + np.full((8, 8, 3), value, "<u2").tobytes()))


def test_colours_of_12_bits_in_16_are_refused_because_pillow_drops_their_lower_half() -> None:
    assert colours(colours_of_16_bits(40000)) == [[156] * 3]
    with pytest.raises(DataError, match="colours up to 4095 in a TIFF of 16 bits"):
        prepare(colours_of_16_bits(4000), RECIPE)


@pytest.mark.parametrize(
    ("background", "expected"), [("black", [0] * 3), ("#10A0ff", [16, 160, 255]), ("white", WHITE)]
)
def test_transparent_pictures_lie_over_the_background(tmp_path: Path, background: str, expected: list[int]) -> None:
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(file, "PNG")
    from tests.images.test_tar import opened

    source = opened(folder(tmp_path, {"1.png": file.getvalue()}))
    images = load_all(source, Recipe(8, "box", background=background)).images
    assert images[0, :, 0, 0].tolist() == expected


def test_every_stage_that_looks_at_pictures_lists_all_of_a_recipe() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in ("vqgan", "tokenize", "reference"):
        listed = set(stages[stage]["params"])
        for field in Recipe.__dataclass_fields__:
            assert {"images", f"images.{field}"} & listed, (stage, field)
