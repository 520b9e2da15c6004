"""A training that can be looked at: pictures on the way, and models of unfinished ones."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import TINY, inside, merge, run_stages, write_params
from tests.runtime.test_launcher import curves
from vqlcmd import figures, live
from vqlcmd.cli import export
from vqlcmd.methods import load_method
from vqlcmd.runtime import launcher
from vqlcmd.runtime.errors import ConfigError, DataError, Interrupted
from vqlcmd.unfinished import load_state

STEPS = 70


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_method(path, torch.device("cpu"))[0].state_dict()


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def stop_training(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until the user asks to stop during `step`."""

    @contextmanager
    def graceful() -> Iterator[Callable[[], bool]]:
        calls = iter(range(1, 10**6))
        yield lambda: next(calls) >= step

    with monkeypatch.context() as patch:
        patch.setattr(launcher, "graceful", graceful)
        with pytest.raises(Interrupted):
            run_stages(folder, "train")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_pictures_on_the_way_change_no_weight_and_the_last_is_the_top_of_the_grid(finished: Path, copy: Path) -> None:
    write_params(copy, merge(TINY, {"train": {"sample_every": 30}}))
    run_stages(copy, "train")
    (album,) = (copy / ".state" / "logs").glob("train-*")
    assert [path.name for path in sorted(album.iterdir())] == [
        *("0000030.png", "0000060.png", "0000070.png"),
        *("embeddings-0000030.png", "embeddings-0000060.png", "embeddings-0000070.png"),
        "reconstructions.png",
    ]
    assert np.array_equal(pixels(album / "reconstructions.png"), pixels(finished / "metrics" / "reconstructions.png"))
    assert np.array_equal(pixels(album / "embeddings-0000070.png"), pixels(finished / "metrics" / "embeddings.png"))
    last = pixels(copy / "metrics" / "live.png")
    assert np.array_equal(last, pixels(album / "0000070.png"))
    assert not np.array_equal(last, pixels(album / "0000030.png"))
    # The border below the last row is where the grid has its next one.
    grid = pixels(finished / "metrics" / "grid.png")
    assert np.array_equal(last[:-8], grid[: len(last) - 8])
    for name in ("model", "best"):
        file = f"data/model/{name}.safetensors"
        assert_equal(weights(copy / file), weights(finished / file))
    assert (copy / "metrics" / "train.tsv").read_bytes() == (finished / "metrics" / "train.tsv").read_bytes()


def test_the_metric_names_the_best_row_and_its_state_is_beside_the_last(finished: Path) -> None:
    row = json.loads((finished / "metrics" / "train.json").read_text(encoding="utf-8"))
    table = curves(finished)
    best = int(np.argmin(table["heldout_loss"]))
    assert row["best_step"] == table["step"][best]
    assert row["best_heldout_loss"] == pytest.approx(table["heldout_loss"][best])
    assert {path.name for path in (finished / "data/model").iterdir()} == {"model.safetensors", "best.safetensors"}


def test_a_picture_that_fails_is_a_line_and_training_goes_on(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_params(copy, merge(TINY, {"train_steps": 4, "train": {"sample_every": 2}}))
    (copy / "data" / "vqgan.safetensors").unlink()
    run_stages(copy, "train")
    lines = [line for line in capsys.readouterr().err.splitlines() if "no picture" in line]
    assert len(lines) == 3
    assert "train: no picture of samples at step 2: data/vqgan.safetensors is missing" in lines[0]
    assert (copy / "data/model/model.safetensors").is_file()
    assert not (copy / "metrics/live.png").exists()


def test_another_domain_has_no_viewer_until_it_brings_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent: list[Any] = []
    log: Any = type("Log", (), {"picture": staticmethod(lambda *args: sent.append(args))})
    with inside(tmp_path):
        pictures = live.Pictures("sounds", {}, torch.eye(3), tmp_path / "album", log)
        pictures.add(5, torch.zeros(1, 4), None, torch.eye(3))
        assert "no picture of samples at step 5: no viewer for sounds" in capsys.readouterr().err
        monkeypatch.setitem(live.VIEWERS, "sounds", "tests.training.test_live:drawn")
        pictures.add(6, torch.zeros(1, 4), None, torch.eye(3))
        assert ("samples", 6, tmp_path / "album" / "0000006.png") in sent
        assert [name for name, _, _ in sent] == ["embeddings", "samples", "embeddings"]
        assert (tmp_path / "metrics" / "live.png").is_file()


def drawn(tokens_BN: torch.Tensor, labels: None, header: dict[str, Any], path: Path) -> None:
    figures.image_grid(torch.zeros(len(tokens_BN), 3, 8, 8, dtype=torch.uint8), 1, path)


def test_an_unfinished_training_is_a_model_and_goes_on_to_the_same_end(
    finished: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(copy, merge(TINY, {"train": {"snapshots": [40]}}))
    stop_training(copy, 40, monkeypatch)
    with inside(copy):
        model, step = load_state("newest")
        assert step == 40
        # Of whoever reads it: nothing is locked, and nothing of the run's own folder is touched.
        export.draw_gallery("data", Path("g.png"), None, 1, state="newest", steps=2)
        export.sample_images("data", Path("out"), "3", 2, state="newest", steps=2)
        assert "at step 40" in capsys.readouterr().out
        (folder,) = (copy / ".state" / "train").iterdir()
        with pytest.raises(ConfigError, match=f"--state other is no unfinished training: choose newest, {folder.name}"):
            load_state("other")
    run_stages(copy, "train")
    assert_equal(model.method.state_dict(), weights(copy / "data/model/snapshots/40.safetensors"))
    assert_equal(weights(copy / "data/model/model.safetensors"), weights(finished / "data/model/model.safetensors"))
    with inside(copy), pytest.raises(ConfigError, match="holds no saved state"):
        load_state("newest")


def test_the_state_of_a_training_on_other_tokens_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_params(copy, merge(TINY, {"train": {"ema": 0.9}}))
    stop_training(copy, 2, monkeypatch)
    write_params(copy, merge(TINY, {"tokenize": {"holdout": 0.3}}))
    run_stages(copy, "tokenize")
    with inside(copy), pytest.raises(DataError, match="is a training on other tokens than data/tokens"):
        load_state("newest")
