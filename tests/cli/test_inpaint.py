"""In-painting: masks as people make them, pictures as cameras store them, and edits that stay within the mask."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torch import Tensor

import vqlcmd
from tests.tokenizers import SMALL, seeded
from vqlcmd.cli import export
from vqlcmd.cli.export import inpaint_image
from vqlcmd.generator import Generator
from vqlcmd.params.types import Section
from vqlcmd.runtime.errors import ConfigError, DataError

SIDE = 16
ABOUT: dict[str, Any] = {
    "class_names": [],
    "grid": [4, 4],
    "params": {"seed": 0},
    "sampling": {"steps": 2, "sampler": "ancestral", "guidance": 0.0, "own": {}},
}


class Painter:
    """A method that draws code 1 wherever a token is not given."""

    supports_inpainting = True
    knobs = Section

    def check(self, how: object, infill: bool = False) -> None:
        pass

    def sample(self, label: Tensor | None, rng: object, how: object, known: Tensor) -> Tensor:
        return torch.where(known < 0, 1, known)


@pytest.fixture
def generator() -> Generator:
    return Generator(Painter(), seeded(SMALL), ABOUT, torch.device("cpu"))  # pyright: ignore[reportArgumentType]


def image() -> Tensor:
    return torch.arange(3 * SIDE * SIDE).reshape(3, SIDE, SIDE).remainder(100).byte()


def test_results_differ_from_the_picture_within_the_hole_alone(generator: Generator) -> None:
    """They took whole tokens: thin strokes left blocks with seams."""
    hole = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    hole[5, 3:9] = True
    painted, kept = generator.inpaint(image(), hole, None, 2)
    assert torch.equal(painted[:, :, ~hole], image()[:, ~hole].expand(2, -1, -1))
    assert (painted[:, :, hole] != image()[:, hole]).any()
    assert torch.equal((kept == 127).all(dim=0), hole)


def test_whole_tokens_take_all_pixels_of_a_token(generator: Generator) -> None:
    hole = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    hole[5, 3:9] = True
    patch = SIDE // generator.grid[0]
    painted, kept = generator.inpaint(image(), hole, None, 1, whole_tokens=True)
    blocks = torch.nn.functional.max_pool2d(hole[None].float(), patch).bool()[0]
    blocks = blocks.repeat_interleave(patch, 0).repeat_interleave(patch, 1)
    assert torch.equal((kept == 127).all(dim=0), blocks)
    assert torch.equal(painted[0][:, ~blocks], image()[:, ~blocks])
    narrow, _ = generator.inpaint(image(), hole, None, 1)
    assert torch.equal(painted[0][:, hole], narrow[0][:, hole]), "the same decoding"


@pytest.mark.parametrize(("white", "says"), [(0, "no white pixel"), (SIDE, "leaves nothing of the picture to go by")])
def test_a_mask_without_a_hole_and_one_that_is_all_hole_are_refused(
    generator: Generator, white: int, says: str
) -> None:
    hole = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    hole[:white] = True
    with pytest.raises(ConfigError, match=says):
        generator.inpaint(image(), hole, None, 1)


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the model is asked for, in a folder with tokens of 8 pixels a side over red."""
    given: dict[str, Any] = {}

    class Model:
        about: ClassVar[dict[str, Any]] = {}

        def inpaint(self, pixels: Tensor, hole: Tensor, *_: object, **how: object) -> tuple[Tensor, Tensor]:
            given.update(pixels=pixels, hole=hole, how=how)
            return pixels[None], pixels

    monkeypatch.chdir(tmp_path)
    settings = {"size": 8, "resize": "box", "crop": "random", "background": "red"}
    Model.about["images"] = settings
    monkeypatch.setattr(vqlcmd, "load", lambda _: Model())
    monkeypatch.setattr(export.figures, "image_grid", lambda *_: None)
    Image.new("RGB", (8, 8), "blue").save("picture.png")
    return given


def paint(picture: str = "picture.png", mask: str = "mask.png") -> None:
    inpaint_image(
        Path("data"),
        Path(picture),
        Path(mask),
        Path("out.png"),
        None,
        1,
        steps=2,
        guidance=0.0,
        seed=0,
        whole_tokens=False,
    )


def test_white_strokes_on_a_transparent_ground_are_a_mask_and_the_ground_is_kept(seen: dict[str, Any]) -> None:
    """Transparency was laid over white, so that the whole picture was drawn anew."""
    strokes = np.zeros((8, 8, 4), np.uint8)
    strokes[2:4, 1:7] = 255
    strokes[6, :, :3] = 255
    Image.fromarray(strokes).save("mask.png")
    paint()
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:4, 1:7] = True
    assert torch.equal(seen["hole"], expected)


def test_the_picture_itself_lies_over_the_background_of_the_training_images(seen: dict[str, Any]) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save("picture.png")
    Image.new("L", (8, 8), 255).save("mask.png")
    paint()
    assert seen["pixels"][:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", [6, 8, 3])
def test_a_photograph_is_turned_upright_before_its_mask_is_laid_over_it(seen: dict[str, Any], orientation: int) -> None:
    """Sides were compared as stored: the right mask was refused, and a wrong one taken."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turned = orientation in (6, 8)
    pixels = np.zeros((16, 24, 3), np.uint8)
    Image.fromarray(pixels).save("picture.jpg", exif=exif)
    Image.new("L", (16, 24) if turned else (24, 16)).save("mask.png")
    paint("picture.jpg")
    Image.new("L", (24, 16) if turned else (16, 24)).save("mask.png")
    with pytest.raises(ConfigError, match=r"mask\.png has .* pixels and picture\.jpg .*, both upright"):
        paint("picture.jpg")


def test_a_photograph_is_turned_once(seen: dict[str, Any]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 200
    Image.fromarray(pixels).save("picture.png", exif=exif)
    Image.new("L", (8, 8)).save("mask.png")
    paint()
    assert seen["pixels"][0, :, 0].tolist() == [0] * 4 + [200] * 4


@pytest.mark.parametrize("which", ["picture.png", "mask.png"])
@pytest.mark.parametrize("damage", ["cut", "eps", "empty", "missing"])
def test_a_damaged_picture_or_mask_is_one_line_that_names_it(seen: dict[str, Any], which: str, damage: str) -> None:
    """A truncated one was a traceback, and a PostScript file a program."""
    Image.new("L", (8, 8)).save("mask.png")
    whole = Path(which).read_bytes()
    Image.new("RGB", (8, 8)).save("other.eps")
    contents = {"cut": whole[: len(whole) // 2], "eps": Path("other.eps").read_bytes(), "empty": b""}
    if damage == "missing":
        Path(which).unlink()
    else:
        Path(which).write_bytes(contents[damage])
    with pytest.raises(DataError, match=rf"^{which} cannot be read as a picture: ") as error:
        paint()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "images", [None, {}, {"background": "red"}, {"size": 10**9}, {"size": "8"}, {"crop": "x"}, {"background": "\x1b"}]
)
def test_a_model_that_does_not_say_how_pictures_were_prepared_is_to_be_trained_anew(
    seen: dict[str, Any], monkeypatch: pytest.MonkeyPatch, images: dict[str, Any] | None
) -> None:
    """A picture of a side of 10^9 would be made, where somebody's model asks for it."""
    Image.new("L", (8, 8)).save("mask.png")
    whole = {"size": 8, "resize": "box", "crop": "random", "background": "red"}
    partial = images in (None, {}, {"background": "red"})
    about = {} if images is None else {"images": images if partial else whole | images}
    monkeypatch.setattr(type(vqlcmd.load("")), "about", about)
    with pytest.raises(DataError, match=r"does not say how pictures were prepared, .*`dvc repro` trains it anew"):
        paint()
