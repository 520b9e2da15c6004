"""The page's own process imports no PyTorch, and every part of the page is built from descriptions alone."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.pipeline_imports import ROOT

BUILT = """
import sys
from unittest.mock import MagicMock
from vqlcmd.page.description import Description, Setting
from vqlcmd.page.browser.app import build
steps = Setting("steps", 50, "", 1, 200)
strength = Setting("strength", 0.5, "How strong.", 0, 1)
names = ("ant", "bee")
usual = Description("lcmd", "a <line>", names, (steps, strength), 0, 32, ("embeddings",), True, "metrics/train.tsv")
bare = Description("autoregressive", "another", (), (), 0, 8, ("embeddings", "codebook"), False, None)
build(MagicMock(), {"one": usual, "two": bare}, ".")
print([name for name in ("torch", "safetensors", "matplotlib") if name in sys.modules])
"""
FAKED = "import sys; from unittest.mock import MagicMock; sys.modules['gradio'] = MagicMock()\n"


@pytest.mark.parametrize(
    "before",
    [
        FAKED,
        pytest.param(
            "",
            marks=pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="not installed: gradio"),
        ),
    ],
    ids=["without Gradio", "with Gradio"],
)
def test_the_page_is_built_without_pytorch(before: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", before + BUILT],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
