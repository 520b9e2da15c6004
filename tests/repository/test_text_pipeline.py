"""The pipeline of text as DVC runs it, in a clone: what docs/text.md says of the two files to copy. Minutes."""

import json
import shutil
from pathlib import Path

import pytest

from tests.pipeline_imports import ROOT
from tests.repository.test_dvc import run
from tests.texts import prepare

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone turned into one of text, in which `dvc repro` has run and its results are committed."""
    folder = tmp_path_factory.mktemp("dvc") / "clone"
    run(ROOT, "git", "clone", "--quiet", str(ROOT), str(folder))
    for name in ("vqlcmd", "stages", "presets", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".gitignore", folder)
    prepare(folder, {})
    shutil.copy(folder / "pipelines" / "text.yaml", folder / "dvc.yaml")
    shutil.move(folder / "texts", folder.parent / "texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQLCMD_TEXT", str(folder.parent / "texts"))
        run(folder, "dvc", "repro")
    run(folder, "git", "add", "--all")
    run(folder, "git", "commit", "--quiet", "--message", "text")
    return folder


def test_a_second_repro_has_nothing_to_do_and_leaves_git_clean(clone: Path) -> None:
    assert "Data and pipelines are up to date" in run(clone, "dvc", "repro")
    assert run(clone, "git", "status", "--porcelain") == ""
    shown = json.loads(run(clone, "dvc", "metrics", "show", "--json"))
    assert "bits_per_character" in shown[""]["data"]["metrics/evaluate.json"]["data"]


def test_another_method_computes_neither_tokens_nor_language_model_again(clone: Path) -> None:
    text = run(clone, "dvc", "exp", "run", "--temp", "-S", "method=maskgit")
    for stage in ("vocabulary", "tokenize", "reference"):
        assert f"Running stage '{stage}'" not in text
    for stage in ("train", "sample", "bound", "evaluate"):
        assert f"Running stage '{stage}'" in text
    assert run(clone, "git", "status", "--porcelain") == ""


def test_the_way_back_to_images_runs_none_of_their_stages(clone: Path) -> None:
    """dvc.lock knows them, so a stage whose outputs are in the cache is no more stale than before."""
    before = set(json.loads(run(ROOT, "dvc", "status", "--json")))
    run(clone, "git", "checkout", "--quiet", "HEAD~1", "--", "dvc.yaml", "dvc.lock", "params.yaml")
    stale = json.loads(run(clone, "dvc", "status", "--json"))
    assert "vocabulary" not in stale
    for stage in stale.keys() - before:
        # Nothing was run here: outputs are missing, and nothing else differs.
        assert all("deleted" in str(each) or "changed outs" in each for each in stale[stage]), stale[stage]
