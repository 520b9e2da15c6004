"""Pictures: what is drawn where, looked up in the pixels or in what matplotlib was told."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from tests.factory import normal
from vqlcmd import figures


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved."""
    kept: list[Figure] = []
    save = figures._save

    def keep(figure: Any, path: Path) -> None:
        kept.append(figure)
        save(figure, path)

    monkeypatch.setattr(figures, "_save", keep)
    return kept


def test_without_captions_images_lie_row_by_row_in_a_frame_of_white(tmp_path: Path) -> None:
    images = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 64, 64) * 10
    figures.image_grid(images, 3, tmp_path / "a.png")
    found = pixels(tmp_path / "a.png")
    assert found.shape == (2 * 66 + 2, 3 * 66 + 2, 3)
    centres = [int(found[2 + 66 * row + 32, 2 + 66 * column + 32, 0]) for row in range(2) for column in range(3)]
    assert centres == [0, 10, 20, 30, 40, 50]


def test_captions_stand_once_above_rows_of_the_same_classes_and_again_where_they_change(tmp_path: Path) -> None:
    images = torch.zeros(6, 3, 64, 64, dtype=torch.uint8)
    figures.image_grid(images, 2, tmp_path / "same.png", captions=["a", "b"] * 3)
    figures.image_grid(images, 2, tmp_path / "each.png", captions=[*"abcdef"])
    figures.image_grid(images, 2, tmp_path / "none.png")
    plain, same, each = (pixels(tmp_path / f"{name}.png") for name in ("none", "same", "each"))
    strip = same.shape[0] - plain.shape[0]
    assert strip > 0
    assert each.shape[0] - plain.shape[0] == 3 * strip
    assert np.array_equal(same[2 + strip :], plain[2:])
    # Words in black on white above each column.
    for left in (2, 68):
        assert same[2 : 2 + strip, left : left + 64].min() < 100


def test_a_caption_is_cut_to_its_column(tmp_path: Path) -> None:
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    figures.image_grid(images, 2, tmp_path / "a.png", captions=["a name that is\nmuch too long" * 9, ""])
    found = pixels(tmp_path / "a.png")
    assert found[2:20, 2:66].min() < 100
    assert found[2:20, 68:].min() == 255


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
def test_a_histogram_of_norms_never_reaches_below_zero(drawn: list[Figure], tmp_path: Path, spread: float) -> None:
    table = normal(64, 1).abs() * spread + 0.01
    figures.embeddings(table, table, tmp_path / "a.png")
    for axis in drawn[0].axes:
        if "norms" in axis.get_title():
            assert min(bar.get_x() for bar in axis.patches) >= 0  # pyright: ignore[reportAttributeAccessIssue]


def test_distances_of_many_codes_are_a_draw_of_them_that_the_title_names(drawn: list[Figure], tmp_path: Path) -> None:
    matrix, which = figures.distances(normal(1024, 4))
    assert (matrix.shape, which) == ((1024, 1024), "")
    table = normal(65_536, 4)
    matrix, which = figures.distances(table)
    assert (matrix.shape, which) == ((1024, 1024), "1,024 of 65,536 codes")
    assert torch.equal(matrix, figures.distances(table)[0])
    figures.embeddings(normal(8, 4), table, tmp_path / "a.png")
    titles = [axis.get_title() for axis in drawn[0].axes]
    assert "embeddings of the model: distances\n1,024 of 65,536 codes" in titles
    assert "VQGAN codebook: distances" in titles


def test_flat_curves_do_not_lie_on_the_frame_and_rows_keep_their_order(drawn: list[Figure], tmp_path: Path) -> None:
    steps = [0.0, 1.0, 2.0]
    curves = {
        name: {"step": steps, "nothing": [0.0] * 3, "embedding_rank": [value] * 3}
        for name, value in (("b", 5.0), ("a", 0.0))
    }
    figures.collapse(curves, {"b": normal(5, 3), "a": normal(5, 3)}, tmp_path / "a.png")
    shown = {axis.get_title(): axis for axis in drawn[0].axes if axis.get_visible() and axis.get_title()}
    assert list(shown) == ["nothing", "embedding_rank", "b", "a"]
    for name in ("nothing", "embedding_rank"):
        low, high = shown[name].get_ylim()
        for line in shown[name].lines:
            values = np.asarray(line.get_ydata(), dtype=float)
            assert low < values.min() <= values.max() < high


def test_curves_are_drawn_without_the_models_that_a_clone_lacks(drawn: list[Figure], tmp_path: Path) -> None:
    """Results are in Git, models are not: there was no picture at all."""
    curves = {name: {"step": [0.0, 1.0], "embedding_rank": [1.0, 2.0]} for name in ("b", "a")}
    figures.collapse(curves, {}, tmp_path / "a.png")
    shown = [axis for axis in drawn[0].axes if axis.get_visible()]
    assert [axis.get_title() for axis in shown] == ["embedding_rank"]
    assert len(shown[0].lines) == 2
    figures.collapse(curves, {"a": normal(5, 3)}, tmp_path / "a.png")
    assert [axis.get_title() for axis in drawn[1].axes if axis.get_visible()][:2] == ["embedding_rank", "a"]


def test_a_run_has_one_colour_in_all_panels_and_a_line_for_each_seed(drawn: list[Figure], tmp_path: Path) -> None:
    line = ([0.0, 1.0], [2.0, -1.0])
    figures.lines({"x": {"a": [line, line]}, "y": {"b": [line], "a": [line]}}, tmp_path / "a.png")
    left, right = drawn[0].axes
    colours = [
        {each.get_color() for each in axis.lines if len(set(np.asarray(each.get_ydata()))) > 1}
        for axis in (left, right)
    ]
    assert len(colours[0]) == 1 < len(colours[1])
    assert colours[0] < colours[1]
    assert [axis.get_title() for axis in (left, right)] == ["x", "y"]
    assert len(left.lines) == 3, "two seeds and the line at 0"
