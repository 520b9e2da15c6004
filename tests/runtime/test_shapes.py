"""Building shapes alone: those of the weights, without the parts of PyTorch that take a second to import."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.factory import METHODS, build, codebook, model_params
from tests.pipeline_imports import ROOT
from tests.test_other_versions import write
from vqlcmd import methods
from vqlcmd.runtime.shapes import shapes_alone


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("options", [{}, {"embedding": "unit"}, {"self_conditioning": 0.5, "weighting": "warped"}])
def test_shapes_are_those_of_the_weights(name: str, options: dict[str, Any]) -> None:
    expected = build(method=name, classes=3, **options).state_dict()
    given, table = model_params(method=name, **options), codebook()
    with shapes_alone():
        found = methods.build(given, torch.empty(table.shape), 4, 3).state_dict()
    assert found.keys() == expected.keys()
    for key, value in found.items():
        assert (value.shape, value.dtype, value.is_meta) == (expected[key].shape, expected[key].dtype, True), key


@pytest.mark.parametrize("name", ["lcmd", "maskgit"])
def test_loading_a_model_imports_no_compiler(name: str, tmp_path: Path) -> None:
    """torch._dynamo and sympy, whose import took a second of every command that loads a model."""
    write(tmp_path, name, weighting="simple")
    code = (
        "import sys, vqlcmd; vqlcmd.load(sys.argv[1]); "
        "sys.exit(', '.join({'torch._dynamo', 'sympy'} & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
