"""Rows of a comparison differ in what varies and in nothing else."""

from pathlib import Path

import pytest
import torch

from tests.page.models import TOKENS, saved
from vqlcmd.page.models.comparing import drawn_rows, rows
from vqlcmd.page.models.drawing import Onlooker
from vqlcmd.runtime.errors import ConfigError


def test_each_row_is_what_its_model_draws_with_the_same_seed(tmp_path: Path) -> None:
    models = {name: saved(tmp_path / name, method=name) for name in ("lcmd", "maskgit")}
    found = rows(models, ["maskgit", "lcmd"], "steps", "2, 3")
    assert [row.label for row in found] == ["maskgit, steps 2", "maskgit, steps 3", "lcmd, steps 2", "lcmd, steps 3"]
    drawn = drawn_rows(found, "", 5, 7, lambda model: Onlooker(model.method.tokens))
    for row, each in zip(found, drawn, strict=True):
        assert torch.equal(each.images, row.model.sample([0, 1, 2, 0, 1], seed=7, **row.how))


def test_the_same_setting_gives_the_same_images_in_every_row(tmp_path: Path) -> None:
    models = {"data": saved(tmp_path, method="lcmd")}
    found = rows(models, ["data"], "guidance", "1, 1, 2")
    one, same, other = (d.images for d in drawn_rows(found, "bee", 6, 0, lambda _: Onlooker(TOKENS)))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert [row.label for row in found] == ["guidance 1", "guidance 1", "guidance 2"]
    assert [row.label for row in rows(models, ["data"], None, "")] == ["data"]


def test_what_cannot_be_compared_is_one_line(tmp_path: Path) -> None:
    models = {"a": saved(tmp_path / "a", method="lcmd"), "b": saved(tmp_path / "b", method="lcmd", names=("x", "y"))}
    with pytest.raises(ConfigError, match="no model is chosen"):
        rows(models, [], None, "")
    with pytest.raises(ConfigError, match="14 rows are more than the 12 that fit"):
        rows(models, ["a", "b"], "steps", "1,2,3,4,5,6,7")
    with pytest.raises(ConfigError, match="temperature is nothing that can be set of lcmd"):
        rows(models, ["a"], "temperature", "1")
    with pytest.raises(ConfigError, match="b has no class cat"):
        list(drawn_rows(rows(models, ["b"], None, ""), "cat", 2, 0, lambda _: Onlooker(TOKENS)))
