"""tokenize and reference as processes: the same result for any number of them, interrupted or not."""

import io
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from tests.conftest import TINY, merge, prepare, write_params
from tests.kinds import MAKERS
from tests.pipeline_imports import ROOT
from tests.runtime.test_launcher import alive, children, finish, start
from tests.tokenizers import seeded
from vqlcmd.images import manifest
from vqlcmd.params import load_params
from vqlcmd.pretrained.described import architecture
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.safetensors_file import load_weights
from vqlcmd.tokenizer import vqgan

# Small batches and shards: long enough to be caught in the act.
SLOW: dict[str, Any] = {"tokenize": {"batch_size": 10, "shard_images": 100}}


def tokens(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted((folder / "data" / "tokens").iterdir())}


def reference(folder: Path) -> dict[str, torch.Tensor]:
    return load_weights(folder / "data" / "reference" / "features.safetensors", "reference")[0]


@pytest.fixture(scope="module")
def slow(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens by SLOW's settings, of one process that nobody interrupted."""
    folder = Path(shutil.copytree(finished, tmp_path_factory.mktemp("slow") / "run"))
    write_params(folder, merge(TINY, SLOW))
    finish(folder, "tokenize")
    return folder


@pytest.fixture
def fresh(slow: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(slow, tmp_path / "fresh"))
    shutil.rmtree(folder / "data" / "tokens")
    return folder


def wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def interrupt(folder: Path, stage: str, stop: Callable[[subprocess.Popen[str]], None], **environment: str) -> None:
    """Stops a stage in the midst of its batches; later and later, since a slow machine takes long to begin."""
    text = ""
    for seconds in (1, 3, 9, 27):
        shutil.rmtree(folder / ".state" / stage, ignore_errors=True)
        process = start(folder, stage, **environment)
        wait_until(lambda: bool(list(folder.glob(f".state/{stage}/*/lock"))))
        time.sleep(seconds)
        stop(process)
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 130, text
        assert "Traceback" not in text
        if list(folder.glob(f".state/{stage}/*/[0-9]*.pt")):
            return
    pytest.fail(f"no state was left: {text}")


def wait_for_shards(folder: Path) -> None:
    wait_until(lambda: bool(list(folder.glob(".state/tokenize/*/[0-9]*.pt"))))


@pytest.mark.slow
def test_two_processes_make_the_same_shards_byte_for_byte(slow: Path, fresh: Path) -> None:
    text = finish(fresh, "tokenize", VQLCMD_NPROC="2")
    assert "1797 done" in text
    assert tokens(fresh) == tokens(slow)


@pytest.mark.slow
def test_two_processes_make_the_same_reference(copy: Path) -> None:
    """Up to the rounding of one float32 convolution and of sums: the processes look at the same batches."""
    write_params(
        copy, merge(TINY, {"reference": {"batch_size": 50, "limit": 1230}, "evaluate": {"precision_images": 99}})
    )
    finish(copy, "reference")
    alone = reference(copy)
    finish(copy, "reference", VQLCMD_NPROC="2")
    together = reference(copy)
    assert alone["real_features"].shape == alone["reconstructed_features"].shape == (99, 64)
    assert alone.keys() == together.keys()
    for name, values in alone.items():
        torch.testing.assert_close(together[name], values, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "processes"), [(signal.SIGKILL, "1"), (signal.SIGKILL, "2"), (signal.SIGTERM, "2")])
def test_interrupted_tokens_end_as_uninterrupted_ones(
    slow: Path, fresh: Path, number: signal.Signals, processes: str
) -> None:
    process = start(fresh, "tokenize", VQLCMD_NPROC=processes)
    wait_for_shards(fresh)
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 130), text
    assert "Traceback" not in text
    assert not (fresh / "data" / "tokens").exists()
    time.sleep(1.5 if number == signal.SIGKILL and processes == "2" else 0)
    finish(fresh, "tokenize")
    assert tokens(fresh) == tokens(slow)
    assert not list(fresh.glob(".state/tokenize/*"))


@pytest.mark.parametrize("stage", ["tokenize", pytest.param("reference", marks=pytest.mark.slow)])
def test_a_signal_to_all_processes_at_once_leaves_a_state_and_no_traceback(fresh: Path, stage: str) -> None:
    """A batch system's: the processes that decode images ended with it, and the one that saves fell over them."""
    write_params(fresh, merge(merge(TINY, SLOW), {"reference": {"batch_size": 1}, "tokenize": {"batch_size": 1}}))
    together = {"VQLCMD_NPROC": "2", "VQLCMD_WORKERS": "1"}
    interrupt(fresh, stage, lambda process: os.killpg(process.pid, signal.SIGTERM), **together)


@pytest.mark.slow
def test_when_a_worker_dies_nobody_writes_on_and_the_next_start_goes_on(slow: Path, fresh: Path) -> None:
    process = start(fresh, "tokenize", VQLCMD_NPROC="2")
    wait_for_shards(fresh)
    workers = children(process.pid)
    os.kill(workers[1], signal.SIGKILL)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 1, text
    assert "process 1 of 2 ended with -9" in text
    assert not any(alive(worker) for worker in workers)
    finish(fresh, "tokenize", VQLCMD_NPROC="2")
    assert tokens(fresh) == tokens(slow)


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
def test_an_interrupted_reference_ends_as_the_uninterrupted_one(copy: Path, processes: str) -> None:
    """By as many processes to the last bit; by one alone up to the rounding of sums in float64."""
    write_params(copy, merge(TINY, {"reference": {"batch_size": 1, "limit": 900}}))
    finish(copy, "reference", VQLCMD_NPROC="2")
    whole, expected = reference(copy), sha256(copy / "data/reference/features.safetensors")
    interrupt(copy, "reference", lambda process: process.terminate(), VQLCMD_NPROC="2")
    finish(copy, "reference", VQLCMD_NPROC=processes)
    for name, values in reference(copy).items():
        torch.testing.assert_close(values, whole[name], rtol=1e-6, atol=1e-6)
    if processes == "2":
        assert sha256(copy / "data/reference/features.safetensors") == expected
    assert not list(copy.glob(".state/reference/*"))


@pytest.mark.slow
def test_thousands_of_pictures_make_the_same_shards_from_any_source_by_one_process_or_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digits and their negatives at 32 pixels, with the demo's tokenizer (fresh weights)."""
    pixels, labels = load_digits(return_X_y=True)
    pictures = {}
    for number, (digit, label) in enumerate(zip([*pixels, *(16 - pixels)], [*labels, *labels], strict=True)):
        file = io.BytesIO()
        grey = np.uint8(np.asarray(digit).reshape(8, 8) * 15)
        Image.fromarray(grey).resize((32, 32), Image.Resampling.BICUBIC).save(file, "PNG")
        pictures[f"{label}/{number:05}.png"] = file.getvalue()
    pictures = dict(sorted(pictures.items()))
    monkeypatch.setenv("VQLCMD_IMAGES", str(tmp_path / "pictures"))
    folder = prepare(tmp_path / "run", {})
    demo = load_params(ROOT / "presets" / "digits.yaml")
    write_params(folder, {"dataset": "set", "images": {"size": 32}, "tokenize": {"shard_images": 1000}})
    vqgan.save(
        seeded(replace(architecture(demo.vqgan, demo.images.size), resolution=32)),
        folder / "data" / "vqgan.safetensors",
        {},
    )
    made = {}
    for kind, make in MAKERS.items():
        place = make(tmp_path / "pictures" / kind, pictures)
        monkeypatch.setenv("VQLCMD_IMAGES", str(place.parent))
        manifest.write(manifest.scan("set", place, classes=False), folder / "data" / "manifests" / "set.json")
        for count in ("1", "2"):
            finish(folder, "tokenize", VQLCMD_NPROC=count, VQLCMD_WORKERS="1")
            made[kind, count] = {name: digest for name, digest in tokens(folder).items() if name.endswith(".tar")}
    expected = made["folder", "1"]
    assert len(expected) > 3
    assert all(digests == expected for digests in made.values()), made
