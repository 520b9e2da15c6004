"""A gate on quality: the demo, shortened as far as its samples still mean something."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import run_stages, write_params
from tests.pipeline_imports import ROOT

pytestmark = pytest.mark.slow
SHORT = {
    "vqgan": {"fit": {"steps": 300}},
    "train_steps": 600,
    "train": {"log_every": 200},
    "sample": {"count": 500},
    "sample_steps": 20,
}
ACCURACY = 0.8
"""Of 500 samples under the proxy classifier: one run gave 0.916 (docs/log.md), chance is 0.1."""


def test_a_short_demo_draws_digits_that_the_proxy_classifier_recognises(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "data" / "manifests", tmp_path / "data" / "manifests")
    write_params(tmp_path, SHORT)
    run_stages(tmp_path, "vqgan", "tokenize", "train", "sample", "reference", "evaluate")
    found = json.loads((tmp_path / "metrics" / "evaluate.json").read_text(encoding="utf-8"))
    assert found["class_accuracy_proxy"] > ACCURACY
    assert found["reconstruction"]["fid_proxy"] < found["fid_proxy"]
