"""A training that was killed at half time, in a checkout whose code is then edited."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY, merge, write_params
from tests.pipeline_imports import ROOT
from tests.runtime.test_launcher import LONG, wait_for_state
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.safetensors_file import load_weights

pytestmark = pytest.mark.slow
MODEL = Path("data/model/model.safetensors")


@pytest.fixture
def checkout(copy: Path) -> Path:
    """Code, tokens and parameters, without the installed package's path."""
    for name in ("vqlcmd", "stages"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", copy)
    write_params(copy, merge(TINY, LONG))
    return copy


def start(folder: Path, **switch: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", **switch}
    return subprocess.Popen(
        [sys.executable, "-m", "stages.train"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder: Path, **switch: str) -> tuple[int, str]:
    process = start(folder, **switch)
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


def kill_at_half_time(folder: Path) -> None:
    process = start(folder)
    wait_for_state(folder, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def edit(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8") + "# An edit.\n", encoding="utf-8")


def test_after_an_edit_of_neutral_files_it_ends_bit_for_bit_as_the_uninterrupted_run(checkout: Path) -> None:
    whole = Path(shutil.copytree(checkout, checkout.parent / "whole"))
    assert finish(whole)[0] == 0
    kill_at_half_time(checkout)
    for file in (
        "runtime/progress.py",
        "runtime/resume.py",
        "params/sections.py",
        "__init__.py",
        "cli/main.py",
        "figures.py",
    ):
        edit(checkout / "vqlcmd" / file)
    code, text = finish(checkout)
    assert code == 0, text
    assert "goes on from step" in text
    assert sha256(checkout / MODEL) == sha256(whole / MODEL)


def test_after_an_edit_of_a_loss_it_says_so_and_goes_on_when_told_to(checkout: Path) -> None:
    kill_at_half_time(checkout)
    edit(checkout / "vqlcmd" / "diffusion" / "losses.py")
    code, text = finish(checkout)
    assert code == 1
    assert "vqlcmd/diffusion/losses.py" in text
    assert "Traceback" not in text
    (state,) = checkout.glob(".state/train/*")
    assert list(state.glob("[0-9]*.pt"))
    code, text = finish(checkout, VQLCMD_RESUME=f"train/{state.name}")
    assert code == 0, text
    assert "goes on from step" in text
    _, about = load_weights(checkout / MODEL, "model")
    (edited,) = about["resumed_across"]
    assert edited["files"] == ["vqlcmd/diffusion/losses.py"]
    assert len({edited["from"], edited["to"]}) == 2
