"""The stage on one, two and three processes: what it leaves behind, also where it was killed."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import TINY, merge, write_params
from tests.runtime.test_launcher import curves, finish, start, wait_for_state
from vqlcmd.methods import load_method
from vqlcmd.runtime.files import sha256

KEPT = {"train_steps": 60, "train": {"save_every": 3, "log_every": 20, "snapshots": [1, 40, 60], "ema": [0.9, 0.99]}}


def digests(folder: Path) -> dict[str, str]:
    model = folder / "data" / "model"
    return {path.relative_to(model).as_posix(): sha256(path) for path in model.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_killed_run_leaves_the_same_files_as_a_whole_one(copy: Path) -> None:
    """DVC empties the outputs of a stage before it runs, also of one that goes on."""
    write_params(copy, merge(TINY, KEPT))
    (copy / "data/model/snapshots").mkdir()
    (copy / "data/model/snapshots/7.safetensors").write_bytes(b"another run's")
    finish(copy, "train")
    whole, table = digests(copy), (copy / "metrics/train.tsv").read_bytes()
    snapshots = {f"snapshots/{step}.safetensors" for step in (1, 40, 60)}
    assert set(whole) == {"model.safetensors", "best.safetensors", "ema-0.99.safetensors"} | snapshots
    for name in whole:
        method, about = load_method(copy / "data/model" / name, torch.device("cpu"))
        assert not method.training
        assert about["params"]["train"]["ema"] == [0.9, 0.99]
    process = start(copy, "train")
    wait_for_state(copy, process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    for name in whole:
        (copy / "data/model" / name).unlink()
    (copy / "metrics/train.tsv").unlink()
    finish(copy, "train")
    assert digests(copy) == whole
    assert (copy / "metrics/train.tsv").read_bytes() == table


def test_the_last_row_is_a_metric_and_says_why_a_number_is_null(copy: Path) -> None:
    row = json.loads((copy / "metrics/train.json").read_text(encoding="utf-8"))
    assert row["step"] == curves(copy)["step"][-1]
    assert row["heldout_loss"] == pytest.approx(curves(copy)["heldout_loss"][-1])
    write_params(copy, merge(TINY, {"tokenize": {"holdout": 0.0}, "train_steps": 2, "train": {"log_every": 1}}))
    finish(copy, "tokenize")
    finish(copy, "train")
    row = json.loads((copy / "metrics/train.json").read_text(encoding="utf-8"))
    assert row["heldout_loss"] is None
    assert "nothing is held out" in row["heldout_loss_null"]
    assert all(np.isnan(curves(copy)["heldout_loss"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "environment"),
    [({"method": "vq_diffusion"}, {}), ({}, {"VQLCMD_MICRO_BATCH": "5"}), ({"method": "maskgit", "drop": 0.0}, {})],
    ids=["vq_diffusion", "pieces", "maskgit"],
)
def test_two_processes_agree_with_one(copy: Path, changes: dict[str, Any], environment: dict[str, str]) -> None:
    short = {"train_steps": 12, "train": {"log_every": 1}, "discrete": {"timesteps": 3}}
    write_params(copy, merge(merge(TINY, short), changes))
    finish(copy, "train", **environment)
    alone = curves(copy)
    finish(copy, "train", VQLCMD_NPROC="2", **environment)
    together = curves(copy)
    for name in ("loss", "grad_norm", "heldout_loss", "ce_0.5"):
        assert np.allclose(alone[name], together[name], rtol=2e-3), name
        assert np.allclose(alone[name][:3], together[name][:3], rtol=1e-5), f"{name}, before rounding has grown"


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, {"VQLCMD_MICRO_BATCH": "4"}], ids=["whole", "pieces"])
def test_two_processes_resume_bit_for_bit(copy: Path, environment: dict[str, str]) -> None:
    environment = {"VQLCMD_NPROC": "2", **environment}
    changes = {"train_steps": 60, "train": {"batch_size": 32, "save_every": 4, "log_every": 20}}
    write_params(copy, merge(TINY, changes))
    finish(copy, "train", **environment)
    whole, table = digests(copy), (copy / "metrics/train.tsv").read_bytes()
    process = start(copy, "train", **environment)
    wait_for_state(copy, process)
    process.terminate()
    assert "state saved" in process.communicate(timeout=120)[0]
    finish(copy, "train", **environment)
    assert digests(copy) == whole
    assert (copy / "metrics/train.tsv").read_bytes() == table
