"""Images of every kind become the right pixels, and files that are no images are told by name."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from vqlcmd import images
from vqlcmd.errors import DataError
from vqlcmd.images import Recipe, load_all, open_images, prepare, stream
from vqlcmd.manifest import scan
from vqlcmd.sources import ImageSource

RECIPE = Recipe(size=8, resize="box")
RED, WHITE = (255, 0, 0), (255, 255, 255)


def reopened(image: Image.Image, file_format: str, **options: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return Image.open(file)


def colours(image: Image.Image, recipe: Recipe = RECIPE) -> list[list[int]]:
    """The distinct colours of the prepared image, sorted."""
    return np.unique(prepare(image, recipe).reshape(3, -1).T, axis=0).tolist()


def opened(folder: Path) -> ImageSource:
    return open_images(scan("test", folder), folder.parent)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, of 6 and 5 images of one grey each: 0, 10, 20, ..."""
    for i in range(11):
        path = tmp_path / "pictures" / ("cat" if i < 6 else "dog") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9 + i, 12), 10 * i).save(path)
    return tmp_path / "pictures"


def break_some(folder: Path) -> None:
    """One truncated, one empty, one text and one flat file: positions 1, 3, 4 and 9."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    (folder / "cat/01.png").write_bytes(file.getvalue()[:1500])
    (folder / "cat/03.png").write_bytes(b"")
    (folder / "cat/04.png").write_text("not pixels at all")
    Image.new("RGB", (1, 30)).save(folder / "dog/09.png")


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
    upright = np.zeros((16, 16), np.uint8)
    upright[:8, :8], upright[:8, 8:] = 255, 128
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = prepare(reopened(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif), RECIPE)
    corners = pixels[0, [1, 1, -2, -2], [1, -2, 1, -2]].astype(int)
    assert np.abs(corners - [255, 128, 0, 0]).max() <= 8


def test_the_cut_is_centred_for_wide_tall_and_odd_images() -> None:
    ramp = np.tile(np.arange(25, dtype=np.uint8) * 10, (10, 1))
    wide = prepare(Image.fromarray(ramp), Recipe(size=10, resize="bilinear"))
    tall = prepare(Image.fromarray(np.ascontiguousarray(ramp.T)), Recipe(size=10, resize="bilinear"))
    np.testing.assert_array_equal(wide[0, 0], np.arange(75, 175, 10))
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


def test_the_digits_are_1797_images_of_ten_classes_over_the_whole_range() -> None:
    digits = open_images(scan("digits", "sklearn-digits"), None)
    batch = load_all(digits, RECIPE)
    assert batch.images.shape == (1797, 3, 8, 8)
    assert (int(batch.images.min()), int(batch.images.max())) == (0, 255)
    assert batch.labels.unique().tolist() == list(range(10))
    assert len(digits) == len({digits.name(i) for i in range(1797)}) == 1797


def test_images_come_in_the_order_of_their_names_with_the_label_of_their_folder(folder: Path) -> None:
    source = opened(folder)
    batches = list(stream(source, RECIPE, batch_size=4))
    assert [len(batch.index) for batch in batches] == [4, 4, 3]
    assert torch.cat([batch.images for batch in batches])[:, 0, 0, 0].tolist() == list(range(0, 110, 10))
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0] * 6 + [1] * 5
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(11))
    assert (source.name(0), source.name(10)) == ("cat/00.png", "dog/10.png")


def test_the_order_does_not_depend_on_how_the_system_lists_a_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = opened(folder)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            with scandir(path) as items:
                self.items = sorted(items, key=lambda item: item.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.items

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Backwards)
    source = opened(folder)
    assert [source.name(i) for i in range(11)] == [expected.name(i) for i in range(11)]
    assert source.entries == expected.entries


def test_only_the_asked_for_positions_are_read_and_in_their_order(folder: Path) -> None:
    batches = list(stream(opened(folder), RECIPE, batch_size=2, indices=[7, 0, 3]))
    assert [batch.index.tolist() for batch in batches] == [[7, 0], [3]]
    assert [batch.images[:, 0, 0, 0].tolist() for batch in batches] == [[70, 0], [30]]


def test_every_broken_file_is_in_the_one_error_with_its_reason(folder: Path) -> None:
    break_some(folder)
    batches = []
    with pytest.raises(DataError) as error:
        batches.extend(stream(opened(folder), RECIPE, batch_size=3))
    message = str(error.value)
    assert message.startswith("4 of 11 images cannot be read: cat/01.png (image file is truncated")
    assert "cat/03.png (not an image that Pillow can read); cat/04.png (not an image that Pillow can read)" in message
    assert "dog/09.png (1 x 30 pixels; each side needs 2 or more)" in message
    assert "images.skip_broken: true" in message
    assert "\n" not in message
    assert str(folder) not in message
    assert sum(len(batch.index) for batch in batches) == 7


def test_skipped_files_leave_full_batches_of_the_rest(folder: Path) -> None:
    break_some(folder)
    broken: dict[str, str] = {}
    batches = list(stream(opened(folder), RECIPE, batch_size=3, skip_broken=True, broken=broken))
    assert [batch.index.tolist() for batch in batches] == [[0, 2, 5], [6, 7, 8], [10]]
    assert [batch.images[:, 0, 0, 0].tolist() for batch in batches] == [[0, 20, 50], [60, 70, 80], [100]]
    assert [batch.labels.tolist() for batch in batches] == [[0, 0, 0], [1, 1, 1], [1]]
    assert sorted(broken) == ["cat/01.png", "cat/03.png", "cat/04.png", "dog/09.png"]


def test_a_source_of_broken_files_only_is_an_error_though_they_may_be_skipped(tmp_path: Path) -> None:
    for i in range(25):
        (tmp_path / f"{i:02d}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"25 of 25 .* 19\.jpg \([^()]*\); and 5 more; repair") as error:
        load_all(opened(tmp_path), RECIPE, skip_broken=True)
    assert "20.jpg" not in str(error.value)
    assert "skip_broken" not in str(error.value)


def test_a_decompression_bomb_is_broken_and_a_merely_large_image_is_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15 * 12)
    Image.new("L", (60, 12)).save(folder / "dog/10.png")
    broken: dict[str, str] = {}
    load_all(opened(folder), RECIPE, skip_broken=True, broken=broken)
    assert list(broken) == ["dog/10.png"]
    assert "decompression bomb" in broken["dog/10.png"]


def test_batches_are_full_though_they_are_no_multiple_of_what_is_read_at_a_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "CHUNK", 3)
    batches = list(stream(opened(folder), RECIPE, batch_size=4))
    assert [batch.index.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_workers_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_some(folder)
    monkeypatch.setattr(images, "CHUNK", 2)
    alone: dict[str, str] = {}
    shared: dict[str, str] = {}
    source = opened(folder)
    expected = list(stream(source, RECIPE, batch_size=3, skip_broken=True, broken=alone))
    actual = list(stream(source, RECIPE, batch_size=3, skip_broken=True, broken=shared, workers=2))
    assert len(actual) == len(expected) == 3
    for batch, wanted in zip(actual, expected, strict=True):
        for field, wanted_field in zip(batch, wanted, strict=True):
            torch.testing.assert_close(field, wanted_field, rtol=0, atol=0)
    assert list(shared.items()) == list(alone.items())


def test_reading_leaves_the_global_random_state_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    load_all(opened(folder), RECIPE)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_limit_draws_a_subset_by_seed(folder: Path) -> None:
    source = opened(folder)
    drawn = [load_all(source, RECIPE, limit=5, seed=seed) for seed in (0, 0, 1)]
    assert [len(batch.index) for batch in drawn] == [5, 5, 5]
    assert drawn[0].index.tolist() == sorted(set(drawn[0].index.tolist()))
    assert drawn[0].index.tolist() == drawn[1].index.tolist() != drawn[2].index.tolist()
    assert drawn[0].images[:, 0, 0, 0].tolist() == [10 * i for i in drawn[0].index.tolist()]
    assert load_all(source, RECIPE, limit=11, seed=1).index.tolist() == list(range(11))


def test_a_missing_root_or_folder_is_told_with_the_variable_to_set(folder: Path) -> None:
    manifest = scan("test", folder)
    for root in (None, folder / "elsewhere"):
        with pytest.raises(DataError, match="set VQLCMD_IMAGES to the folder that holds 'pictures'"):
            open_images(manifest, root)
