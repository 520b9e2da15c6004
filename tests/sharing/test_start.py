"""`vqlcmd init`: a folder in which stages run with its own code, whoever calls them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipeline_imports import ROOT
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.files import sha256
from vqlcmd.sharing.start import start


@pytest.mark.parametrize("preset", ["pictures", "text"])
def test_a_new_folder_has_all_that_its_stages_list_and_the_code_of_the_package(tmp_path: Path, preset: str) -> None:
    folder = tmp_path / "mine"
    start(folder, preset)
    assert sha256(folder / "params.yaml") == sha256(ROOT / "presets" / f"{preset}.yaml")
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in stages.values():
        for dep in stage["deps"]:
            if not dep.startswith(("data/", "metrics/")):
                assert (folder / dep.replace("${method}", "lcmd")).exists(), dep
    code = {path.relative_to(ROOT) for path in (ROOT / "vqlcmd").rglob("*.py")}
    assert {path.relative_to(folder) for path in (folder / "vqlcmd").rglob("*.py")} == code
    assert not list(folder.rglob("__pycache__"))
    assert not (folder / "tests").exists()


def test_a_folder_with_something_in_it_is_left_alone_but_an_empty_repository_is_one(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="has something in it already"):
        start(tmp_path, "digits")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "new" / ".git").mkdir(parents=True)
    start(tmp_path / "new", "digits")
    assert (tmp_path / "new" / "dvc.yaml").is_file()


def test_an_unknown_preset_is_one_line_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--preset cats is not there: choose one of digits, .*, text"):
        start(tmp_path / "mine", "cats")
    assert not (tmp_path / "mine").exists()


def test_the_command_runs_the_folders_code_and_not_the_installed_one(tmp_path: Path) -> None:
    """Parameters were read by the installed package, and the folder's stages ran with it."""
    start(tmp_path, "digits")
    main = tmp_path / "vqlcmd" / "cli" / "tables.py"
    told = main.read_text(encoding="utf-8").replace("for name in names():", "for name in ['of this folder']:")
    main.write_text(told.replace("table = load(name)", "print(name); return"), encoding="utf-8")
    # -P: as a console script, which does not look for modules where it is called.
    code = "import sys; sys.argv[0] = 'vqlcmd'; from vqlcmd.cli.main import main; main()"
    for variables in ({}, {"PYTHONSAFEPATH": "1"}):
        done = subprocess.run(
            [sys.executable, "-P", "-c", code, "table", "list"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.stdout == "of this folder\n", done.stderr
