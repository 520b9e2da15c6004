"""docs/mnist.md: its lines of Python write the package's digits as pictures in folders that are classes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.pipeline_imports import ROOT
from vqlcmd.images import manifest
from vqlcmd.params import load_params

PAGE = (ROOT / "docs" / "mnist.md").read_text(encoding="utf-8")


def test_the_pages_python_writes_the_packages_digits_as_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the package a class is one list of numbers with three decimals, at times longer than its pictures."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 2, 28, 28))
    (tmp_path / "package/src/digits").mkdir(parents=True)
    for digit, pictures in enumerate(pixels):
        values = [*(pictures / 255).round(3).flatten().tolist(), 0, 0]
        (tmp_path / f"package/src/digits/{digit}.json").write_text(json.dumps({"data": values}), encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    listed = manifest.scan("mnist", tmp_path / "mnist")
    assert listed.classes == tuple("0123456789")
    assert [entry.images for entry in listed.entries] == [2] * 10
    assert np.array_equal(np.asarray(Image.open(tmp_path / "mnist/7/0001.png")), pixels[7, 1])


def test_the_page_tells_the_presets_numbers() -> None:
    params = load_params(ROOT / "presets" / "mnist.yaml")
    side = params.images.size // 2 ** (len(params.vqgan.ch_mult) - 1)
    assert f"pictures of {params.images.size} pixels" in PAGE.replace("digits of", "pictures of")
    assert f"{side} x {side} tokens of {params.vqgan.n_embed} codes" in PAGE
