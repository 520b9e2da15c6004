"""What an edit costs: `dvc status` on a copy of the repository, against the table on the architecture page."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import inside
from tests.pipeline_imports import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# | an edit of | [`file`](../file) | stages, or nothing |
ROW = re.compile(r"^\| ([^|]+) \| `([\w/.]+\.py)` \| ([^|]+) \|$", re.MULTILINE)
EDITS = {file: (what, set(re.findall(r"`(\w+)`", stages))) for what, file, stages in ROW.findall(PAGE)}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository with an up-to-date dvc.lock: every output is there, if only as a stand-in."""
    folder = tmp_path_factory.mktemp("edits")
    for name in ("vqlcmd", "stages", "data/manifests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(ROOT / "presets" / "digits.yaml", folder / "params.yaml")
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    for stage in stages.values():
        for out in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            path = folder / (next(iter(out)) if isinstance(out, dict) else out)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"stands for {path.name}\n", encoding="utf-8")
    from dvc.repo import Repo

    with inside(folder), Repo.init(no_scm=True) as repo:
        repo.commit(force=True)
    return folder


def stale(folder: Path) -> set[str]:
    from dvc.repo import Repo

    with inside(folder), Repo() as repo:
        return set(repo.status())


def test_nothing_is_stale_before_an_edit(copy: Path) -> None:
    assert stale(copy) == set()


@pytest.mark.parametrize("file", EDITS)
def test_an_edit_makes_just_those_stages_stale_that_the_page_says(copy: Path, file: str) -> None:
    path = copy / file
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}# An edit.\n", encoding="utf-8")
    try:
        assert stale(copy) == EDITS[file][1]
    finally:
        path.write_text(before, encoding="utf-8")


def test_the_page_has_edits_of_every_kind() -> None:
    assert len(EDITS) >= 12
    assert sum(not stages for _, stages in EDITS.values()) >= 5
    assert {"figures"} in [stages for _, stages in EDITS.values()]
