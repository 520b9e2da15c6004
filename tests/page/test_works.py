"""What the page asks for, without a page and without a process: each piece of work gives what there is to show."""

import base64
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.page.models import CODES, SIDE, saved
from tests.page.test_painting import strokes
from tests.pipeline_imports import ROOT
from vqlcmd.page import chart
from vqlcmd.page.jobs import Stopped
from vqlcmd.page.models import codes, pictures
from vqlcmd.page.models.describing import describe
from vqlcmd.page.models.works import WORKS, Asker, compare, draw, fill_in, look_inside, near, open_picture
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.tokenizer import codebook_table

HOW = {"seed": 3, "steps": 4}


def images(html: str) -> list[np.ndarray]:
    """Pixels of the pictures in HTML."""
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]


def drawn(folder: Path, asker: Asker | None = None, **overrides: Any) -> tuple[Any, list[dict[str, Any]]]:
    model = saved(folder, **{"method": "lcmd", **overrides})
    values: dict[str, Any] = {"count": 5, "class_": None, "how": HOW, "columns": 2, "folder": str(folder)}
    return model, list(draw(model, asker or Asker(), **values))


def test_images_come_first_and_the_film_of_two_rows_of_them_afterwards(tmp_path: Path) -> None:
    model, (first, film) = drawn(tmp_path)
    expected = model.sample([0, 1, 2, 0, 1], seed=3, steps=4).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.stack(images(first["gallery"])), expected)
    assert re.findall("<figcaption>(.*?)</figcaption>", first["gallery"]) == ["ant", "bee", "cat", "ant", "bee"]
    assert re.fullmatch(r"\*\*5 images\*\* · \d+\.\d\d s · 5 network calls an image · seed 3", first["cost"]), first[
        "cost"
    ]
    with Image.open(film["film"]) as moving:
        assert getattr(moving, "n_frames", 1) == 6
        assert moving.height < 3 * (pictures.TILE + 2 * pictures.MARGIN), "two rows"


def test_the_asker_is_told_of_every_prediction_and_can_stop(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    drawn(tmp_path, Asker(report=lambda done, most: told.append((done, most))))
    assert told == [(number, 5) for number in range(1, 6)]
    with pytest.raises(Stopped, match="stopped after 2 predictions"):
        drawn(tmp_path / "again", Asker(lambda: len(told) > 6, lambda done, most: told.append((done, most))))


def test_a_film_is_stopped_too(tmp_path: Path) -> None:
    told: list[int] = []
    with pytest.raises(Stopped, match="stopped after the images were drawn"):
        # All five predictions are told of before the film begins.
        drawn(tmp_path, Asker(lambda: len(told) == 5, lambda done, most: told.append(done)))
    assert len(list(tmp_path.glob("samples-*.zip"))) == 1
    assert not list(tmp_path.glob("trajectory-*"))


def test_what_is_kept_stands_before_the_results(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd")
    image = model.sample([0], seed=1)[0].numpy()
    values: dict[str, Any] = {"class_": 1, "count": 3, "whole_tokens": False, "how": HOW, "columns": 3}
    ((html, cost),) = fill_in(model, Asker(), image=image, layers=strokes(0, 8, 16, 16), **values)
    kept, *results = images(html)
    assert len(results) == 3
    assert (kept[:, 8:] == 127).all()
    assert all(np.array_equal(each[:, :8], image.transpose(1, 2, 0)[:, :8]) for each in (kept, *results))
    assert cost.startswith("**3 images**")
    with pytest.raises(ConfigError, match="there is no picture yet"):
        next(fill_in(model, Asker(), image=None, layers=[], **values))


def test_a_file_is_opened_as_the_model_sees_it(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd")
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    ((image, large),) = open_picture(model, Asker(), path=str(tmp_path / "mine.png"), side=60)
    assert np.array_equal(image, pixels.transpose(2, 0, 1))
    assert np.array_equal(large[::4, ::4], pixels)


def test_rows_come_one_by_one(tmp_path: Path) -> None:
    models = {name: saved(tmp_path / name, method=name) for name in ("lcmd", "maskgit")}
    values: dict[str, Any] = {"chosen": list(models), "vary": "steps", "values": "2, 3", "class_": "bee", "seed": 1}
    html, lines = zip(*compare(models, Asker(), count=2, **values), strict=True)
    assert [len(images(each)) for each in html] == [2, 4, 6, 8]
    assert lines[-1] == "4 of 4 rows · seed 1"
    with pytest.raises(Stopped):
        next(compare(models, Asker(stopped=lambda: True), count=2, **values))


def test_inside_are_near_codes_and_pictures_of_codes_embeddings_and_training(tmp_path: Path) -> None:
    model = saved(tmp_path / "data", method="lcmd")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "train.tsv").write_bytes((ROOT / "metrics" / "train.tsv").read_bytes())
    about = describe(model, str(tmp_path / "data"))
    assert describe(model, "elsewhere/data").curves is None
    (html,) = near(model, Asker(), code=5, table="codebook", count=4, columns=2)
    order, far = codes.nearest(codebook_table(model.tokenizer), 5, 4)
    words = [f"{code}: {distance:.2f}" for code, distance in zip(order, far, strict=True)]
    assert re.findall("<figcaption>(.*?)</figcaption>", html) == words
    assert len(images(html)) == 4
    files: dict[str, str] = {}
    for found in look_inside(model, Asker(), training=about.curves, folder=str(tmp_path)):
        files |= found
    assert list(files) == ["chart", "norms", "training"]
    with Image.open(files["chart"]) as picture:
        assert picture.width == chart.codes_in_a_row(CODES) * chart.CELL
    assert len(list(look_inside(model, Asker(), training=None, folder=str(tmp_path)))) == 2


def test_all_of_it_can_be_sent_to_a_process_without_pytorch(tmp_path: Path) -> None:
    model, found = drawn(tmp_path)
    for sent in (describe(model, str(tmp_path)), found):
        assert b"torch" not in pickle.dumps(sent)
    assert list(WORKS) == ["draw", "sample_one", "open_picture", "fill_in", "compare", "near", "look_inside"]
