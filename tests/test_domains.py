"""Tokens of something else than images: trained on and sampled from without a word about images in params.yaml."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.conftest import TINY, inside, merge, run_stages
from tests.factory import ROOT, integers
from vqlcmd import params
from vqlcmd.params import RunParams, Section
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.yaml_file import read_yaml
from vqlcmd.tokens import shards

CODES, LENGTH = 12, 10
OF_IMAGES = ("dataset", "images", "vqgan", "tokenize", "reference", "evaluate")


class Melody(Section):
    """What only melodies have."""

    key: str


class Melodies(RunParams):
    """Sequences of notes."""

    melody: Melody


def of_melodies(**changes: Any) -> dict[str, Any]:
    values = merge(read_yaml(ROOT / "presets" / "digits.yaml"), TINY)
    kept = {name: value for name, value in values.items() if name not in OF_IMAGES}
    return {**merge(kept, {"train_steps": 2, "train": {"log_every": 1}}), "domain": "melodies", **changes}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(params.DOMAINS, "melodies", Melodies)
    values = of_melodies(melody={"key": "C"}, sample={**of_melodies()["sample"], "count": 6})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    header = {"tokens": LENGTH, "grid": [1, LENGTH], "codes": CODES, "classes": ["slow", "fast"], "vqgan_digest": ""}
    splits = {
        name: shards.Split(integers(CODES, n, LENGTH), integers(2, n), torch.arange(n))
        for name, n in (("train", 64), ("heldout", 8))
    }
    shards.write_shards(tmp_path / "data" / "tokens", splits, header, 32, torch.empty(CODES, 0))
    return tmp_path


def test_melodies_are_trained_on_and_sampled_from_without_a_section_about_images(folder: Path) -> None:
    run_stages(folder, "train", "sample", "bound")
    with inside(folder):
        header = shards.read_header(Path("data/samples"))
        drawn = shards.read_split(Path("data/samples"), "samples")
    assert (header["grid"], header["classes"]) == ([1, LENGTH], ["slow", "fast"])
    assert drawn.tokens.shape == (6, LENGTH)
    assert int(drawn.tokens.max()) < CODES
    assert (folder / "metrics" / "bound.json").is_file()


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_section_of_another_domain_is_an_unknown_key(folder: Path, name: str) -> None:
    value = read_yaml(ROOT / "presets" / "digits.yaml")[name]
    with pytest.raises(ConfigError, match=f"^there: `{name}` is not a parameter"):
        params.check_run(of_melodies(melody={"key": "C"}, **{name: value}), "there")


def test_the_domains_own_sections_are_checked_as_all_are(folder: Path) -> None:
    for changes, says in (({}, "`melody` is missing"), ({"melody": {"key": 3}}, "`melody.key` is 3")):
        with pytest.raises(ConfigError, match=says):
            params.check_run(of_melodies(**changes), "there")


def test_a_stage_of_images_says_so(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml: `domain` is melodies, and this is for images alone"):
        run_stages(folder, "tokenize")


@pytest.mark.parametrize("wrong", ["poems", 3, ["images"]])
def test_an_unknown_domain_is_one_line_with_those_there_are(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"^there: `domain` is ") as caught:
        params.check_run({**of_melodies(), "domain": wrong}, "there")
    assert "\n" not in str(caught.value)
    assert not isinstance(wrong, str) or "must be 'images'" in str(caught.value)
