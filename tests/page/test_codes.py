"""Codes that are near to each other, and the picture of all of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.factory import normal
from tests.page.models import CODES, saved
from vqlcmd.page import chart
from vqlcmd.page.models import codes
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.tokenizer import codebook_table


def test_the_nearest_codes_are_those_of_a_search_through_all() -> None:
    table_KD = normal(20, 5)
    found, far = codes.nearest(table_KD, 7, 6)
    distances = [(table_KD[7] - row).square().sum().sqrt().item() for row in table_KD]
    assert found == sorted(range(20), key=distances.__getitem__)[:6]
    assert far == pytest.approx(sorted(distances)[:6])


def test_a_code_comes_before_another_with_the_same_vector() -> None:
    table_KD = torch.zeros(4, 3)
    for code in range(4):
        found, far = codes.nearest(table_KD, code, 10)
        assert found[0] == code
        assert far == [0] * 4
    with pytest.raises(ConfigError, match="code 4 does not exist: choose 0 to 3"):
        codes.nearest(table_KD, 4, 1)


def test_a_patch_of_the_picture_is_found_again_where_it_was_drawn(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd")
    picture = np.asarray(codes.chart(model))
    looks = codes.patches(model, list(range(CODES)))
    assert looks.shape == (CODES, 3, 4, 4)
    places = [(x, y) for y in range(2, picture.shape[0], chart.CELL) for x in range(2, picture.shape[1], chart.CELL)]
    for number, (x, y) in enumerate(places[:CODES]):
        assert chart.code_at(CODES, x, y) == number
        assert picture[y - 2, x - 2].tolist() == looks[number, :, 0, 0].tolist()
    assert chart.code_at(CODES, picture.shape[1] + 50, picture.shape[0] + 500) == CODES - 1


def test_codes_are_near_in_the_embeddings_and_in_the_codebook(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd")
    found = codes.tables(model)
    assert torch.equal(found["embeddings"], model.method.table)
    assert torch.equal(found["codebook"], codebook_table(model.tokenizer))
