"""`vqlcmd start`: one command from a folder of pictures to a params.yaml, which loses nobody's values."""

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.pipeline_imports import ROOT
from vqlcmd.cli import data
from vqlcmd.images import manifest
from vqlcmd.params import load_params, scaling
from vqlcmd.runtime.errors import ConfigError

CHECKOUT = ("dvc.yaml", "params.yaml")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a pipeline's files, and pictures beside it."""
    root = tmp_path / "root"
    shutil.copytree(ROOT / "presets", root / "presets")
    for name in CHECKOUT:
        shutil.copyfile(ROOT / name, root / name)
    monkeypatch.chdir(root)
    return root


def _pictures(folder: Path, side: int, count: int = 6) -> str:
    folder.mkdir()
    for i in range(count):
        Image.new("RGB", (side + 8, side), (i, 0, 0)).save(folder / f"{i}.png")
    return str(folder)


def test_a_folder_becomes_a_run(checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.start("mine", _pictures(tmp_path / "cats", 50))
    params = load_params(Path("params.yaml"))
    assert (params.dataset, params.images.size) == ("mine", 32)
    assert manifest.read(Path("data/manifests/mine.json")).image_count == 6
    said = capsys.readouterr().out
    assert "vqgan.n_embed 128" in said
    assert f"export VQLCMD_IMAGES={tmp_path}" in said
    assert "enlarged" not in said


def test_sub_folders_are_classes_and_samples_are_guided_to_them(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    for name in ("cats", "dogs"):
        _pictures(tmp_path / "pets" / name, 50)
    data.start("mine", str(tmp_path / "pets"))
    assert load_params(Path("params.yaml")).guidance == scaling.GUIDANCE
    subprocess.run(["git", "init", "-q"], check=True)
    shutil.copyfile("presets/digits.yaml", "params.yaml")
    data.start("mine", str(tmp_path / "pets"), no_classes=True)
    assert load_params(Path("params.yaml")).guidance == 0


@pytest.mark.parametrize(("side", "asked", "becomes"), [(20, None, 16), (20, 64, 64), (300, None, 32), (300, 128, 128)])
def test_the_size_follows_the_pictures_and_the_user(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], side: int, asked: int | None, becomes: int
) -> None:
    data.start("mine", _pictures(tmp_path / "cats", side), size=asked)
    assert load_params(Path("params.yaml")).images.size == becomes
    assert ("enlarged" in capsys.readouterr().out) == (side < becomes)


def test_an_unknown_size_and_values_of_ones_own_are_refused(checkout: Path, tmp_path: Path) -> None:
    source = _pictures(tmp_path / "cats", 40)
    with pytest.raises(ConfigError, match="--size 48 has no shape"):
        data.start("mine", source, size=48)
    own = Path("params.yaml").read_text("utf-8").replace("drop: 0.2", "drop: 0.3")
    Path("params.yaml").write_text(own, "utf-8")
    with pytest.raises(ConfigError, match="no commit has"):
        data.start("mine", source)
    assert Path("params.yaml").read_text("utf-8") == own
    assert not Path("data").exists()
    for command in (
        ["init", "-q"],
        ["add", "params.yaml"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "own"],
    ):
        subprocess.run(["git", *command], check=True)
    data.start("mine", source)
    assert load_params(Path("params.yaml")).dataset == "mine"


def test_a_broken_picture_is_no_obstacle(checkout: Path, tmp_path: Path) -> None:
    source = _pictures(tmp_path / "cats", 40, count=3)
    (tmp_path / "cats" / "0.png").write_bytes(b"nothing")
    data.start("mine", source)
    assert load_params(Path("params.yaml")).images.size == 32


def test_the_pipeline_of_text_is_refused(checkout: Path, tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "pipelines" / "text.yaml", "dvc.yaml")
    with pytest.raises(ConfigError, match=r"dvc\.yaml is not that of images"):
        data.start("mine", _pictures(tmp_path / "cats", 40))
    assert not Path("data").exists()


def test_pictures_of_which_none_can_be_read_are_not_called_small(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _pictures(tmp_path / "cats", 40, count=1)
    (tmp_path / "cats" / "0.png").write_bytes(b"nothing")
    data.start("mine", source)
    assert "enlarged" not in capsys.readouterr().out
