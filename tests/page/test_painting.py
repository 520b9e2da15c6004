"""Uploads go through the checks of tokenizing; strokes become a hole; what is not painted over stays as it was."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.page.models import SIDE, TOKENS, saved
from vqlcmd.images.crops import Recipe, crop_views
from vqlcmd.images.rgb import read_picture
from vqlcmd.page.jobs import Stopped
from vqlcmd.page.models import painting
from vqlcmd.page.models.drawing import Onlooker
from vqlcmd.runtime.errors import ConfigError, DataError


def strokes(top: int, left: int, bottom: int, right: int, canvas: int = 8 * SIDE) -> list[np.ndarray]:
    """One layer that is painted there, in pixels of the model's image."""
    layer = np.zeros((canvas, canvas, 4), np.uint8)
    scale = canvas // SIDE
    layer[top * scale : bottom * scale, left * scale : right * scale, 3] = 200
    return [layer]


def test_a_picture_is_prepared_as_the_training_images_were(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd")
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 90, 3), np.uint8)).save(path)
    found = painting.prepared(model, path)
    assert found.shape == (3, SIDE, SIDE)
    expected = crop_views(read_picture(path, "white"), Recipe.of(**model.about["images"]).deterministic(), 0)[0]
    assert torch.equal(found, torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("name", "contents"),
    [("a.png", b"no picture"), ("b.png", b"%!PS-Adobe-3.0 EPSF-3.0\nshowpage\n"), ("<b>c.png", b"")],
)
def test_an_upload_that_is_no_picture_is_one_line(tmp_path: Path, name: str, contents: bytes) -> None:
    model = saved(tmp_path, method="lcmd")
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(DataError, match=r"cannot be read as a picture: ") as caught:
        painting.prepared(model, tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_upload_may_not_take_more_memory_than_pictures_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path, method="lcmd")
    monkeypatch.setenv("VQLCMD_PICTURE_MB", "1")
    Image.new("RGB", (2000, 2000)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match="VQLCMD_PICTURE_MB"):
        painting.prepared(model, tmp_path / "large.png")


def test_a_model_that_does_not_say_how_pictures_were_prepared_takes_none(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd")
    model.about = {key: value for key, value in model.about.items() if key != "images"}
    with pytest.raises(DataError, match="does not say how pictures were prepared"):
        painting.prepared(model, tmp_path / "any.png")


def test_the_hole_is_what_strokes_cover_half_of() -> None:
    found = painting.hole(strokes(2, 3, 6, 9), (SIDE, SIDE))
    expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    expected[2:6, 3:9] = True
    assert torch.equal(found, expected)
    # A canvas that the side does not divide, and two layers.
    together = [*strokes(0, 0, 8, 16, 7 * SIDE), *strokes(8, 0, 16, 8, 7 * SIDE)]
    assert painting.hole(together, (SIDE, SIDE)).sum() == SIDE * SIDE * 3 // 4
    assert not painting.hole([], (SIDE, SIDE)).any()


def test_results_differ_within_the_hole_alone_and_from_each_other(tmp_path: Path) -> None:
    # An untrained network that is sure of its answer draws the same again and again; a chain does not.
    model = saved(tmp_path, method="d3pm")
    image = model.sample([0], seed=1)[0]
    drawn, kept = painting.fillings(model, image, strokes(0, 8, 16, 16), 1, 4, Onlooker(TOKENS), seed=0, steps=3)
    assert torch.equal(drawn.images[..., :8], image[..., :8].expand(4, -1, -1, -1))
    assert len(drawn.images[..., 8:].flatten(1).unique(dim=0)) > 1
    assert (kept[..., 8:] == 127).all()
    assert drawn.nfe == 3


def test_without_a_class_there_is_no_guidance_and_with_one_there_is(tmp_path: Path) -> None:
    """Of a model that samples with guidance, `any` was refused: guidance needs a class."""
    model = saved(tmp_path, method="lcmd", guidance=1.5, train={"class_drop": 0.1})
    image, layers = model.sample([0])[0], strokes(0, 8, 16, 16)
    calls = [
        painting.fillings(model, image, layers, class_, 2, Onlooker(TOKENS), seed=0, steps=3, guidance=1.5)[0].nfe
        for class_ in (None, 1)
    ]
    assert calls == [4, 8]


@pytest.mark.parametrize(
    ("picture", "layers", "says"),
    [
        (False, strokes(0, 0, 8, 8), "there is no picture yet"),
        (True, [], "nothing is brushed out yet"),
        (True, strokes(0, 0, 0, 0), "nothing is brushed out yet"),
        (True, strokes(0, 0, 16, 16), "leaves nothing of the picture to go by"),
    ],
)
def test_a_picture_and_a_hole_are_needed(tmp_path: Path, picture: bool, layers: list[np.ndarray], says: str) -> None:
    model = saved(tmp_path, method="lcmd")
    image = model.sample([0])[0] if picture else None
    with pytest.raises(ConfigError, match=says):
        painting.fillings(model, image, layers, None, 1, Onlooker(TOKENS))


def test_filling_stops_when_asked_to(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd")
    image = model.sample([0])[0]
    with pytest.raises(Stopped, match="stopped after 0 predictions"):
        painting.fillings(model, image, strokes(0, 0, 8, 8), None, 1, Onlooker(TOKENS, stopped=lambda: True))
