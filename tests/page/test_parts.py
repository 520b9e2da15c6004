"""The page's own process imports no PyTorch; what its models' process cannot load is one line of the command."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline_imports import ROOT
from vqlcmd.runtime.artefacts import exported

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
COMMAND = "sys.argv = ['vqlcmd', 'page', '--model', '{}']\nfrom vqlcmd.cli.main import main; main()"
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
    done = run(before + BUILT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (None, r"vqlcmd: .*model\.safetensors is missing: .*\n"),
        (
            exported.VOCABULARY,
            r"vqlcmd: \S+ is a model of text: .* `vqlcmd infill` and `vqlcmd sample --out FILE\.txt` .*\n",
        ),
    ],
)
def test_a_folder_without_a_model_of_images_is_one_line(tmp_path: Path, file: str | None, says: str) -> None:
    if file is not None:
        (tmp_path / file).write_text("{}", encoding="utf-8")
    done = run(FAKED + COMMAND.format(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(says, done.stderr), done.stderr


def run(code: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, without what the test has imported."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
