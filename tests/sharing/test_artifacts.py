"""`artifacts:` of dvc.yaml: `dvc artifacts get` fetches model and tokenizer by name into any folder. Slow."""

import shutil
from pathlib import Path

import pytest
import torch

import vqlcmd
from tests.pipeline_imports import ROOT
from tests.pretrained.test_hub import exported_model
from tests.repository.test_dvc import run
from vqlcmd.runtime.artefacts import exported
from vqlcmd.runtime.yaml_file import read_yaml

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose stages have run, with this project's dvc.yaml; of the outputs only the two are real."""
    folder = tmp_path_factory.mktemp("artifacts") / "repository"
    for name in ("vqlcmd", "stages", "data/manifests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(ROOT / "presets" / "digits.yaml", folder / "params.yaml")
    given = exported_model(folder.parent / "given")
    for name in exported.CHECKED:
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(given / name, folder / "data" / name)
    for stage in read_yaml(folder / "dvc.yaml")["stages"].values():
        for out in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
            path = folder / (next(iter(out)) if isinstance(out, dict) else out)
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"stands for {path.name}\n", encoding="utf-8")
    for words in (
        ("git", "init", "--quiet"),
        ("dvc", "init", "--quiet"),
        ("dvc", "commit", "--force", "--quiet"),
        ("git", "add", "--all"),
        ("git", "commit", "--quiet", "--message", "a run"),
        ("git", "tag", "-a", "model@v0.1.0", "-m", "a model"),
        ("git", "tag", "-a", "tokenizer@v0.1.0", "-m", "its tokenizer"),
    ):
        run(folder, *words)
    return folder


def test_model_and_tokenizer_come_by_name_and_are_a_model_together(repository: Path, tmp_path: Path) -> None:
    # A folder that is no repository.
    run(tmp_path, "dvc", "artifacts", "get", str(repository), "model", "-o", "got/model")
    run(tmp_path, "dvc", "artifacts", "get", str(repository), "tokenizer", "-o", "got/vqgan.safetensors")
    drawn = vqlcmd.load(str(tmp_path / "got")).sample([0, 1], steps=2)
    assert torch.equal(drawn, vqlcmd.load(str(repository / "data")).sample([0, 1], steps=2))
