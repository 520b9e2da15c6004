"""What two experiments must share to be one: what dvc.yaml lists, and nothing else."""

from pathlib import Path
from typing import Any

import pytest

from tests.factory import params
from tests.pipeline_imports import ROOT
from vqlcmd.experiments.identity import identity_of
from vqlcmd.runtime import pipeline
from vqlcmd.runtime.errors import ConfigError


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("changes", [{"train": {"save_every": 7}}, {"train": {"logger": "tensorboard"}}])
def test_how_a_run_is_watched_and_saved_makes_no_other_experiment(changes: dict[str, Any]) -> None:
    assert identity_of(params(**changes)) == identity_of(params())


@pytest.mark.parametrize(
    "changes",
    [{"drop": 0.3}, {"train": {"batch_size": 8}}, {"method": "maskgit"}, {"reference": {"seed": 3}}],
)
def test_what_a_result_depends_on_makes_another_experiment(changes: dict[str, Any]) -> None:
    assert identity_of(params(**changes)) != identity_of(params())


def test_of_a_table_of_one_stage_only_what_that_stage_depends_on_counts() -> None:
    """And no experiment of the whole pipeline, whose numbers are others, passes for one of it."""
    plain = identity_of(params(), ["vqgan"])
    assert plain != identity_of(params())
    assert plain == identity_of(params(method="maskgit", drop=0.3), ["vqgan"])
    assert plain != identity_of(params(vqgan={"fit": {"l1": 0.5}}), ["vqgan"])
    assert plain != identity_of(params(), ["tokenize"]) != identity_of(params(vqgan={"fit": {"l1": 0.5}}), ["tokenize"])


def test_stages_come_with_those_they_need() -> None:
    assert pipeline.with_needed(["tokenize"]) == ["vqgan", "tokenize"]
    assert pipeline.with_needed(["vqgan"]) == ["vqgan"]
    assert {"vqgan", "tokenize", "method", "train", "bound"} == set(pipeline.with_needed(["bound"]))
    with pytest.raises(ConfigError, match="no stage training: choose from vqgan, "):
        pipeline.with_needed(["training"])


def test_what_is_filled_in_counts_though_no_stage_lists_it(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(
        "stages: {train: {cmd: 'train ${kind}', params: [train.rate], deps: ['${method}.py']}}\n", encoding="utf-8"
    )
    values = {"kind": "a", "method": "b", "train": {"rate": 1, "logger": "none"}}
    assert pipeline.parameters(values, tmp_path) == {"kind": "a", "method": "b", "train.rate": 1}
