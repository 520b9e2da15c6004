"""vqlcmd plan for text: what it announces is what models and files take."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

import vqlcmd.cli.plan
from tests.conftest import inside
from tests.factory import METHODS, codebook, integers, merge
from tests.pipeline_imports import ROOT
from vqlcmd import methods
from vqlcmd.costs.text_plan import TextPlan, text_plan
from vqlcmd.params import TextParams, check_run
from vqlcmd.runtime.yaml_file import read_yaml
from vqlcmd.tokens import shards

PRESET = read_yaml(ROOT / "presets" / "text.yaml")


def planned(blocks: int = 1000, codes: int = 27, **changes: Any) -> TextPlan:
    params = check_run(merge(PRESET, changes), "text")
    assert isinstance(params, TextParams)
    return text_plan(params, blocks, codes)


@pytest.mark.parametrize("name", METHODS)
def test_parameters_are_those_of_the_methods(name: str) -> None:
    found = planned(method=name)
    real = methods.build(found.params.model_part(), codebook(27, 0), found.params.tokenize.block, 0)
    assert found.costs.parameters == sum(parameter.numel() for parameter in real.parameters())
    assert found.rows()[0][1] == planned(method="autoregressive").costs.parameters


def test_files_are_as_large_as_announced_and_more_text_is_more_to_bound(tmp_path: Path) -> None:
    found = planned(5000, sample={"count": 3000})
    for name, count in (("data/tokens", 5000), ("data/samples", 3000)):
        split = shards.Split(integers(27, count, 64), torch.zeros(count, dtype=torch.int64), torch.arange(count))
        shards.write_shards(tmp_path / name, {"train": split}, {"codes": 27}, 2000, torch.empty(27, 0))
        written = sum(path.stat().st_size for path in (tmp_path / name).iterdir())
        assert written == pytest.approx(found.disk()[name], rel=0.15)
    assert planned(10_000).work()["bound"].flops == 2 * planned(5000).work()["bound"].flops
    assert planned(10_000).work()["train"].flops == planned(5000).work()["train"].flops


def test_the_command_counts_blocks_by_the_bytes_of_the_files_and_says_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vqlcmd.cli.main import app

    monkeypatch.setattr(vqlcmd.cli.plan, "SECONDS", 0.01)
    monkeypatch.setenv("COLUMNS", "200")
    values = merge(PRESET, {"dataset": "tales", "text": {"vocabulary": "bytes"}})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    with inside(tmp_path):
        done = CliRunner().invoke(app, ["plan"])
        assert "data/manifests/tales.json is missing: scan tales with --text" in str(done.exception)
        (tmp_path / "data/manifests").mkdir(parents=True)
        file = {"path": "a.txt", "bytes": 6400, "digest": "0" * 64}
        listed = {"name": "tales", "kind": "text", "folder": "tales", "files": [file]}
        (tmp_path / "data/manifests/tales.json").write_text(json.dumps(listed), encoding="utf-8")
        done = CliRunner().invoke(app, ["plan"])
        assert done.exit_code == 0, done.exception
        for words in ("lcmd on tales, 100 blocks", "of 64 tokens of 256 codes", "blocks that fit at once", "a block"):
            assert words in done.output
        assert "image" not in done.output
        values["text"]["vocabulary"] = "characters"
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        done = CliRunner().invoke(app, ["plan", "--images", "12"])
        assert "data/vocabulary.json is missing" in str(done.exception)
