"""docs/emoji.md: its lines of Python sort the pictures of the package into folders that are classes."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.pipeline_imports import ROOT
from vqlcmd.images import manifest
from vqlcmd.params import load_params

PAGE = (ROOT / "docs" / "emoji.md").read_text(encoding="utf-8")


def entry(name: str, category: str, variations: dict[str, str], drawn: bool = True) -> dict[str, object]:
    """As in emoji.json of emoji-datasource-google 16.0.0, cut down to what is read."""
    skins = {skin: {"image": image, "has_img_google": True} for skin, image in variations.items()}
    said: dict[str, object] = {"image": name, "category": category, "has_img_google": drawn}
    return said | ({"skin_variations": skins} if skins else {})


def test_the_pages_python_sorts_pictures_into_categories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        entry("a.png", "Smileys & Emotion", {}),
        entry("b.png", "People & Body", {"1F3FB": "b-1.png", "1F3FC": "b-2.png"}),
        entry("c.png", "Flags", {}),
        entry("d.png", "Flags", {}, drawn=False),
    ]
    pictures = tmp_path / "package" / "img" / "google" / "64"
    pictures.mkdir(parents=True)
    (tmp_path / "package" / "emoji.json").write_text(json.dumps(entries), encoding="utf-8")
    for number, name in enumerate(("a", "b", "b-1", "b-2", "c", "d")):
        Image.new("RGBA", (64, 64), (number, 0, 0, 128)).save(pictures / f"{name}.png")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    listed = manifest.scan("emoji", tmp_path / "emoji")
    assert listed.classes == ("Flags", "People_Body", "Smileys_Emotion")
    assert [entry.images for entry in listed.entries] == [1, 3, 1]


def test_the_page_tells_the_presets_numbers() -> None:
    params, page = load_params(ROOT / "presets" / "emoji.yaml"), " ".join(PAGE.split())
    side = params.images.size // 2 ** (len(params.vqgan.ch_mult) - 1)
    assert f"{side} x {side} tokens of {params.vqgan.n_embed} codes" in page
    assert f"pictures of {params.images.size} pixels" in page
    assert f"{params.train_steps:,} steps of {params.train.batch_size}" in page
    assert f"{params.vqgan.fit.steps:,} steps of {params.vqgan.fit.batch_size}" in page
    assert f"{params.sample.count:,} samples" in page
