"""A params.yaml for somebody's pictures: valid at every size, the preset's own where the preset was made for it."""

import shutil
from pathlib import Path

import pytest

from tests.pipeline_imports import ROOT
from vqlcmd.params import load_params, scaling
from vqlcmd.runtime.yaml_file import read_yaml

PRESET = ROOT / "presets" / "pictures.yaml"
BASE = read_yaml(PRESET)
COUNTS = (1, 40, 299, 300, 4_999, 5_000, 60_000, 250_000, 3_000_000)


def _at(document: object, dotted: str) -> object:
    for key in dotted.split("."):
        assert isinstance(document, dict)
        document = document[key]
    return document


@pytest.mark.parametrize("count", [300, 1_000, 4_999])
def test_a_thousand_pictures_have_the_values_of_the_preset(count: int) -> None:
    preset = read_yaml(PRESET)
    for key, value in scaling.values(BASE, count, 32).items():
        assert _at(preset, key) == value, key


@pytest.mark.parametrize(("classes", "guidance"), [(0, BASE["guidance"]), (1, BASE["guidance"]), (2, scaling.GUIDANCE)])
def test_samples_are_guided_where_there_are_classes_to_tell_apart(classes: int, guidance: float) -> None:
    assert scaling.values(BASE, 1_000, 32, classes)["guidance"] == guidance
    assert BASE["guidance"] < scaling.GUIDANCE


@pytest.mark.parametrize("size", scaling.SHAPES)
@pytest.mark.parametrize("count", COUNTS)
def test_what_is_written_is_a_valid_run(tmp_path: Path, count: int, size: int) -> None:
    target = tmp_path / "params.yaml"
    values = {"dataset": "mine", **scaling.values(BASE, count, size)}
    changed = scaling.write(PRESET, values, target)
    params, document, preset = load_params(target), read_yaml(target), read_yaml(PRESET)
    assert params.dataset == "mine"
    for key, value in values.items():
        assert _at(document, key) == value, key
        assert (key in changed) == (_at(preset, key) != value), key


def test_comments_and_all_other_lines_stay(tmp_path: Path) -> None:
    target = tmp_path / "params.yaml"
    changed = scaling.write(PRESET, scaling.values(BASE, 250_000, 128), target)
    before, after = PRESET.read_text("utf-8").splitlines(), target.read_text("utf-8").splitlines()
    assert len(before) == len(after)
    differing = [line for line, other in zip(before, after, strict=True) if line != other]
    assert len(differing) == len(changed) > 5
    assert [line.partition("#")[2] for line in before] == [line.partition("#")[2] for line in after]


def test_more_pictures_never_have_less(tmp_path: Path) -> None:
    rows = [scaling.values(BASE, count, 64) for count in COUNTS]
    for key in (
        "train.batch_size",
        "vqgan.n_embed",
        "vqgan.fit.steps",
        "train_steps",
        "network.layers",
        "network.width",
        "sample.count",
    ):
        column = [row[key] for row in rows]
        assert column == sorted(column), key
        assert column[0] < column[-1], key
    assert rows[-1]["train_steps"] == scaling.MODEL_MOST


def test_pictures_in_memory_stay_below_their_share() -> None:
    for size in scaling.SHAPES:
        kept = scaling.values(BASE, 10**6, size)["vqgan.fit.limit"]
        assert kept * size**2 <= scaling.KEPT_PIXELS


def test_a_key_that_the_preset_lacks_writes_nothing(tmp_path: Path) -> None:
    shutil.copyfile(PRESET, tmp_path / "params.yaml")
    with pytest.raises(KeyError):
        scaling.write(PRESET, {"vqgan.nothing": 1}, tmp_path / "params.yaml")
    assert (tmp_path / "params.yaml").read_bytes() == PRESET.read_bytes()
