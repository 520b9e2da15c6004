"""wandb and trackio themselves, without a network: rows and pictures of a run that was interrupted and went on."""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline_imports import ROOT

pytestmark = pytest.mark.slow

# In a process of its own: both read their variables when they are imported, and leave threads behind.
RUN = """
import sys
from pathlib import Path
from PIL import Image
from vqlcmd.loggers import LOGGERS
picture = Path("a.png")
Image.new("RGB", (20, 10), "red").save(picture)
for steps in ((50, 100), (100, 150)):
    with LOGGERS[sys.argv[1]](Path("logs/abc"), {"seed": 1, "train": {"betas": None}}) as log:
        for step in steps:
            log.row({"step": step, "loss": step / 10, "heldout_loss": float("nan")})
            log.picture("samples", step, picture)
"""


def run(name: str, folder: Path) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install 'vqlcmd[{name}]'")
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "TRACKIO_DIR": str(folder / "trackio")}
    environment = {**os.environ, **offline, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", RUN, name], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_wandb_keeps_rows_and_pictures_without_a_network(tmp_path: Path) -> None:
    run("wandb", tmp_path)
    runs = sorted((tmp_path / "logs" / "abc" / "wandb").glob("offline-run-*"))
    written = b"".join(path.read_bytes() for each in runs for path in each.glob("run-abc.wandb"))
    assert b"loss" in written
    assert b"heldout_loss" not in written
    shown = {path.name.split("_")[1] for each in runs for path in each.glob("files/media/images/samples_*.png")}
    assert shown == {"50", "100", "150"}


def test_trackio_keeps_rows_and_pictures_and_those_that_come_again_twice(tmp_path: Path) -> None:
    run("trackio", tmp_path)
    with sqlite3.connect(tmp_path / "trackio" / "vqlcmd.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert {name for name, _, _ in rows} == {"abc"}
    found = [(step, json.loads(metrics)) for _, step, metrics in rows]
    assert [(step, each["loss"]) for step, each in found if "loss" in each] == [
        (50, 5),
        (100, 10),
        (100, 10),
        (150, 15),
    ]
    for step, each in found:
        if "samples" in each:
            assert each["samples"]["_type"] == "trackio.image"
            assert (tmp_path / "trackio" / "media" / each["samples"]["file_path"]).is_file(), step
