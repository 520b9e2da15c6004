"""A tiny run of the pipeline that tests share: minutes of the demo, squeezed into seconds."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

# Ahead of NumPy and PyTorch, which read it once: tensors are small, and a second thread only waits, for long where the
# machine is busy. The processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import yaml

from tests.factory import merge as merge
from tests.pipeline_imports import ROOT
from tests.tokenizers import SMALL, seeded
from vqlcmd.runtime.yaml_file import read_yaml
from vqlcmd.tokenizer import vqgan

# Stages run in folders of their own, which hold no code.
os.environ["PYTHONPATH"] = str(ROOT)
STAGES = ("vqgan", "tokenize", "method", "train", "sample", "bound", "reference", "evaluate", "figures")
TINY: dict[str, Any] = {
    "embedding_dim": 8,
    "sample_steps": 3,
    "train_steps": 70,
    "vqgan": {"n_embed": 32, "z_channels": 32, "embed_dim": 4, "fit": {"steps": 20, "batch_size": 16, "limit": 400}},
    "network": {"layers": 2, "heads": 2, "width": 32},
    "train": {"batch_size": 32, "learning_rate": 5e-3, "warmup": 4, "log_every": 30, "save_every": 5},
    "sample": {"count": 50, "batch_size": 20},
    "bound": {"levels": 4, "batch_size": 100},
    "reference": {"proxy": {"steps": 20}},
}


def write_params(folder: Path, changes: dict[str, Any]) -> None:
    """params.yaml in `folder`: the demo's with `changes`."""
    values = merge(read_yaml(ROOT / "presets" / "digits.yaml"), changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")


def prepare(folder: Path, changes: dict[str, Any]) -> Path:
    """A folder in which stages can run."""
    (folder / "data").mkdir(parents=True)
    shutil.copytree(ROOT / "data" / "manifests", folder / "data" / "manifests")
    write_params(folder, merge(TINY, changes))
    return folder


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in `folder`, as DVC does."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def run_stages(folder: Path, *stages: str) -> None:
    """Run stages one after the other in this process."""
    with inside(folder):
        for stage in stages:
            import_module(f"stages.{stage}").run()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_machine_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "VQLCMD_CACHE",
        "VQLCMD_IMAGES",
        "VQLCMD_TEXT",
        "VQLCMD_NPROC",
        "VQLCMD_STATE",
        "VQLCMD_WORKERS",
        "VQLCMD_TOKEN_MB",
        "VQLCMD_MICRO_BATCH",
        "VQLCMD_COMPILE",
        "VQLCMD_PICTURE_MB",
        "DVC_ROOT",
        "RANK",
        "WORLD_SIZE",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage has run. Tests read it, and work on copies."""
    folder = prepare(tmp_path_factory.mktemp("pipeline") / "finished", {})
    run_stages(folder, *STAGES)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run to change."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Any weights at all."""
    path = tmp_path_factory.mktemp("tokenizer") / "vqgan.safetensors"
    vqgan.save(seeded(SMALL), path, {})
    return path


@pytest.fixture
def ready(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run the stage in, and the pictures in all kinds beside it."""
    monkeypatch.setenv("VQLCMD_IMAGES", str(tmp_path / "pictures"))
    folder = prepare(tmp_path / "run", {})
    shutil.copy(tokenizer, folder / "data" / "vqgan.safetensors")
    return folder
