"""What is shown and what is downloaded."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.factory import integers
from vqlcmd.page.models import curves, pictures
from vqlcmd.runtime.errors import DataError

IMAGES = integers(256, 5, 3, 8, 8).byte()


def test_files_of_the_archive_are_the_images_and_their_names_are_safe(tmp_path: Path) -> None:
    path = pictures.archive(IMAGES, ["a", "../b", "c d", "", "é"], tmp_path / "all.zip")
    with zipfile.ZipFile(path) as file:
        assert file.namelist() == ["000-a.png", "001-.._b.png", "002-c_d.png", "003.png", "004-é.png"]
        for name, image in zip(file.namelist(), IMAGES, strict=True):
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(file.read(name)))), image.permute(1, 2, 0).numpy())


def test_a_montage_has_the_images_row_by_row() -> None:
    picture = np.asarray(pictures.montage(IMAGES, 3))
    cell = pictures.TILE + 2 * pictures.MARGIN
    assert picture.shape == (2 * cell, 3 * cell, 3)
    for number, image in enumerate(IMAGES):
        row, column = divmod(number, 3)
        corner = picture[row * cell + pictures.MARGIN, column * cell + pictures.MARGIN]
        assert corner.tolist() == image[:, 0, 0].tolist()
    assert (picture[cell:, 2 * cell :] == 255).all()


def test_an_animation_has_all_frames_and_rests_on_the_last(tmp_path: Path) -> None:
    path = pictures.animation([(1.0, IMAGES), (0.5, 255 - IMAGES), (0.0, IMAGES)], 3, tmp_path / "way.webp")
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 3
        lasts = []
        for frame in range(3):
            image.seek(frame)
            image.load()
            lasts.append(image.info["duration"])
    assert lasts == [pictures.FIRST, pictures.BETWEEN, pictures.LAST]
    with Image.open(pictures.animation([(0.0, IMAGES)], 3, tmp_path / "still.webp")) as image:
        assert getattr(image, "n_frames", 1) == 1


def test_names_of_classes_are_words_and_not_html() -> None:
    shown = pictures.gallery(IMAGES[:1], ['<img src=x onerror="alert(1)">'])
    assert "<img src=x" not in shown
    assert "&lt;img src=x" in shown
    assert "<b>&lt;i&gt;</b>" in pictures.comparison([("<i>", "", IMAGES)])


def test_curves_are_read_and_drawn_in_groups(tmp_path: Path) -> None:
    names = ["step", "loss", "rec", "cm", "heldout_loss", "ce_0.1", "embedding_norm", "decodable_0", "grad_norm"]
    rows = [names, [str(number) for number in range(9)], [str(number / 2) for number in range(9)]]
    path = tmp_path / "train.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    found = curves.read(path)
    assert found["loss"] == [1.0, 0.5]
    grouped = curves.panels(names, ["rec", "cm"])
    assert sorted(name for group in grouped.values() for name in group) == sorted(names[1:])
    with Image.open(curves.draw(found, ["rec", "cm"], tmp_path / "curves.png")) as image:
        assert image.width > 1000


@pytest.mark.parametrize("text", ["step\tloss\n1\tmuch\n", "step\tloss\n1\n"])
def test_a_table_that_is_none_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "train.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.tsv is no table of numbers"):
        curves.read(tmp_path / "train.tsv")


def test_an_enlarged_picture_has_hard_edges() -> None:
    large = np.asarray(pictures.enlarged(torch.stack([IMAGES[0]])[0], 30))
    assert large.shape == (32, 32, 3)
    assert (large[:4, :4] == large[0, 0]).all()
