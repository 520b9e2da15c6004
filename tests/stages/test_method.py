"""The stage that knows a method's name before DVC looks for its file."""

from pathlib import Path

import pytest

from tests import texts
from tests.conftest import TINY, merge, run_stages, write_params
from vqlcmd.runtime.errors import ConfigError


def test_it_leaves_the_name_whatever_the_tokens_stand_for(tmp_path: Path) -> None:
    of_text = texts.prepare(tmp_path / "text", {"method": "autoregressive"})
    of_images = tmp_path / "images"
    of_images.mkdir()
    write_params(of_images, merge(TINY, {"method": "maskgit"}))
    for folder, name in ((of_text, "autoregressive"), (of_images, "maskgit")):
        run_stages(folder, "method")
        assert (folder / "data/method.txt").read_text(encoding="utf-8") == f"{name}\n"


def test_an_unknown_name_gives_those_there_are_and_leaves_nothing(tmp_path: Path) -> None:
    write_params(tmp_path, merge(TINY, {"method": "foo"}))
    with pytest.raises(ConfigError, match=r"method.*foo.*lcmd.*maskgit"):
        run_stages(tmp_path, "method")
    assert not (tmp_path / "data/method.txt").exists()
