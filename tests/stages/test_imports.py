"""What a stage does not need is not imported: every process of every stage pays for it before its first work."""

import json
import subprocess
import sys

from tests.pipeline_imports import ROOT

NEVER = (
    "dvc",
    "lmdb",
    "matplotlib",
    "pandas",
    "scipy",
    "sklearn",
    "torch._dynamo",
    "torch._inductor",
    "torch_fidelity",
    "torchvision",
    "webdataset",
)
"""Needed by few, and imported where they are used."""


def test_no_stage_imports_at_its_start_what_only_some_of_its_work_needs() -> None:
    """All of them in one process, since what one imports is there afterwards."""
    files = sorted((ROOT / "stages").rglob("[a-z]*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    assert len(names) > 8
    code = (
        f"import sys, json, importlib; [importlib.import_module(n) for n in {names}]; print(json.dumps([*sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found = set(json.loads(done.stdout))
    assert "torch" in found
    assert sorted(found & set(NEVER)) == []
