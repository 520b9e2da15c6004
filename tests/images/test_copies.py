"""Copies of one picture are found by their bytes, in every kind of source, and lie on one side of the split."""

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import run_stages, write_params
from tests.images.test_tar import opened
from tests.kinds import MAKERS, PICTURES, encoded, folder
from vqlcmd.images.copies import find_copies, first_of
from vqlcmd.images.manifest import digest, read, scan, write
from vqlcmd.runtime.errors import DataError
from vqlcmd.tokens import shards

DOUBLED = {
    **PICTURES,
    "bee/1.jpg": PICTURES["ant/1.jpg"],
    "cat/1.jpg": PICTURES["ant/1.jpg"],
    "cat/3.png": PICTURES["ant/3.png"],
}


@pytest.mark.parametrize("kind", MAKERS)
def test_copies_are_found_with_the_first_of_their_kind(tmp_path: Path, kind: str) -> None:
    assert find_copies(opened(MAKERS[kind](tmp_path / "1", PICTURES))) == {}
    assert find_copies(opened(MAKERS[kind](tmp_path / "2", DOUBLED))) == {5: 1, 9: 1, 11: 3}


def test_what_cannot_be_read_is_no_copy(tmp_path: Path) -> None:
    path = folder(tmp_path, DOUBLED)
    source = opened(path)
    (path / "ant" / "1.jpg").unlink()
    (path / "ant" / "0.png").unlink()
    assert find_copies(source) == {9: 5, 11: 3}


def test_positions_of_copies_become_those_of_the_first() -> None:
    index = torch.tensor([11, 0, 5, 5, 10, 9, 12])
    assert first_of({5: 1, 9: 1, 11: 3}, index).tolist() == [3, 0, 1, 1, 10, 1, 12]
    assert first_of({}, index) is index


def test_a_manifest_without_copies_is_the_one_it_was(tmp_path: Path) -> None:
    made = scan("set", folder(tmp_path, PICTURES))
    write(made, tmp_path / "set.json")
    assert "copies" not in json.loads((tmp_path / "set.json").read_text())
    other = made.model_copy(update={"copies": {5: 1, 11: 1}})
    write(other, tmp_path / "set.json")
    assert read(tmp_path / "set.json") == other
    assert digest(other) != digest(made)


@pytest.mark.parametrize("copies", [{"1": 1}, {"1": 2}, {"12": 0}, {"2": 1, "3": 2}, {"1": -1}, {"a": 0}])
def test_copies_that_cannot_be_are_a_damaged_manifest(tmp_path: Path, copies: dict[str, int]) -> None:
    write(scan("set", folder(tmp_path, PICTURES)), tmp_path / "set.json")
    values = json.loads((tmp_path / "set.json").read_text()) | {"copies": copies}
    (tmp_path / "set.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="not a valid manifest"):
        read(tmp_path / "set.json")


def test_no_picture_is_both_trained_on_and_held_out(ready: Path) -> None:
    """A fifth of one collection of drawings are copies: the bound was measured on what training had seen."""
    contents = [encoded(number, "png") for number in range(8)]
    pictures = {f"{number:03}.png": contents[number % 8] for number in range(64)}
    path = folder(ready.parent / "pictures", pictures)
    made = scan("set", path)
    made = made.model_copy(update={"copies": find_copies(opened(path))})
    write(made, ready / "data" / "manifests" / "set.json")
    write_params(ready, {"dataset": "set", "tokenize": {"holdout": 0.4}})
    run_stages(ready, "tokenize")
    sides = [
        {position % 8 for position in shards.read_split(ready / "data" / "tokens", name).index.tolist()}
        for name in ("train", "heldout")
    ]
    assert all(sides)
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 8
