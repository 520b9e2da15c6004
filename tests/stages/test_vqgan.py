"""The stage that trains a tokenizer: what it reports, what it starts from, and as processes."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.checkpoints import tamings
from tests.conftest import TINY as TINY_STAGES
from tests.conftest import merge, prepare, run_stages, write_params
from tests.runtime.test_launcher import alive, children, finish, start
from tests.stages.test_parallel import wait_until
from tests.tokenizers import TINY, seeded
from vqlcmd.images import manifest
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.files import sha256
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokenizer.blocks import Architecture, Variant

FIT: dict[str, Any] = {
    "steps": 12,
    "batch_size": 4,
    "limit": 2000,
    "log_every": 4,
    "save_every": 3,
    "use_heldout": False,
    "l1": 0.5,
    "adversarial": 0.3,
    "discriminator": {"start": 0.2, "warmup": 0.1, "channels": 8, "layers": 1},
    "ema": 0.9,
    "flip": True,
    "crop_margin": 0.25,
}


def changes(**fit: Any) -> dict[str, Any]:
    return {"images": {"size": 8}, "vqgan": {"n_embed": 16, "ch_mult": [1, 1], "embed_dim": 4, "fit": FIT | fit}}


def made(folder: Path) -> vqgan.VQGAN:
    return vqgan.load(folder / "data" / "vqgan.safetensors")


def numbers(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics" / "vqgan.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = prepare(tmp_path_factory.mktemp("trained") / "run", changes())
    finish(folder, "vqgan")
    return folder


def test_numbers_are_of_images_that_were_not_trained_on(trained: Path) -> None:
    found = numbers(trained)
    assert found["held_out"] is True
    assert found["images"] + found["judged"] == 1797
    assert 100 < found["judged"] < 250
    assert {"psnr", "ssim", "perplexity", "codes_used"} <= found.keys()


def test_every_row_has_its_picture(trained: Path) -> None:
    with (trained / "metrics" / "tokenizer.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["step"] for row in rows] == ["4", "8", "12"]
    assert {"l1", "l2", "adversarial", "discriminator", "commitment", "psnr", "perplexity"} <= rows[0].keys()
    pictures = sorted((trained / ".state" / "logs").glob("vqgan-*/*.png"))
    assert [path.name for path in pictures] == ["0000004.png", "0000008.png", "0000012.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.size == (8 * 8, 2 * 8)
    assert not list((trained / ".state" / "vqgan").iterdir())


def test_with_all_images_trained_on_the_numbers_say_so(tmp_path: Path) -> None:
    run_stages(prepare(tmp_path / "run", changes(use_heldout=True, steps=3)), "vqgan")
    found = numbers(tmp_path / "run")
    assert (found["held_out"], found["images"], found["judged"]) == (False, 1797, 1797)


@pytest.mark.parametrize("code", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_with_the_same_file(trained: Path, tmp_path: Path, code: signal.Signals) -> None:
    folder = prepare(tmp_path / "run", changes())
    process = start(folder, "vqgan")
    wait_until(lambda: bool(list(folder.glob(".state/vqgan/*/[0-9]*.pt"))))
    process.send_signal(code)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == (-9 if code == signal.SIGKILL else 130), text
    assert "Traceback" not in text
    assert re.search(r"^vqgan: goes on from step [1-9]\d*$", finish(folder, "vqgan"), re.MULTILINE)
    assert sha256(folder / "data/vqgan.safetensors") == sha256(trained / "data/vqgan.safetensors")
    for name in ("vqgan.json", "tokenizer.tsv"):
        assert (folder / "metrics" / name).read_text() == (trained / "metrics" / name).read_text()


@pytest.mark.parametrize(("limit", "processes"), [(2000, 1), (3, 1), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_images_that_cannot_be_read_are_counted_and_named(
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limit: int,
    processes: int,
) -> None:
    monkeypatch.setenv("VQLCMD_IMAGES", str(tmp_path))
    (tmp_path / "few").mkdir()
    for number in range(20):
        Image.new("RGB", (8, 8), (10 * number, 0, 0)).save(tmp_path / "few" / f"{number:02}.png")
    for broken in ("03.png", "07.png", "11.png", "16.png"):
        (tmp_path / "few" / broken).write_bytes(b"\x89PNG\r\n\x1a\nno more")
    folder = prepare(tmp_path / "run", {})
    manifest.write(manifest.scan("few", tmp_path / "few"), folder / "data" / "manifests" / "few.json")
    few: dict[str, Any] = {"dataset": "few", "images": {"skip_broken": True}, "tokenize": {"holdout": 0.3}}
    if processes > 1:
        # A tokenizer that has codes: no process has to look at all pictures for k-means.
        few["vqgan"] = {"init": str(shutil.copy(trained / "data" / "vqgan.safetensors", tmp_path))}
    write_params(folder, merge(merge(TINY_STAGES, changes(steps=2, limit=limit, batch_size=8)), few))
    if processes > 1:
        said = finish(folder, "vqgan", VQLCMD_NPROC=str(processes)) + finish(folder, "tokenize")
    else:
        run_stages(folder, "vqgan", "tokenize")
        said = capsys.readouterr().out
    found = numbers(folder)
    assert found["skipped"] == 4
    assert limit < 20 or found["images"] + found["judged"] == 16
    for stage in ("vqgan", "tokenize"):
        assert re.search(
            rf"^{stage}: 4 images cannot be read and are left out: .*\b07\.png.*\b11\.png", said, re.MULTILINE
        )


@pytest.mark.slow
def test_two_processes_train_as_one_up_to_rounding(trained: Path, tmp_path: Path) -> None:
    folder = prepare(tmp_path / "run", changes())
    finish(folder, "vqgan", VQLCMD_NPROC="2")
    for name in ("images", "judged", "held_out"):
        assert numbers(folder)[name] == numbers(trained)[name]
    assert numbers(folder)["psnr"] == pytest.approx(numbers(trained)["psnr"], abs=0.2)
    one, two = (made(path).decoder.get_parameter("conv_out.weight") for path in (trained, folder))
    assert (one - two).abs().max() < 0.1 * one.abs().max()


def terminated(process: subprocess.Popen[str]) -> None:
    process.terminate()


def worker_killed(process: subprocess.Popen[str]) -> None:
    os.kill(children(process.pid)[1], signal.SIGKILL)


def launcher_killed(process: subprocess.Popen[str]) -> None:
    process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [(terminated, 130), (worker_killed, 1), (launcher_killed, -9)])
def test_two_processes_that_were_killed_end_as_two_that_were_not(
    tmp_path: Path, end: Callable[[subprocess.Popen[str]], None], code: int
) -> None:
    folders = [prepare(tmp_path / name, changes()) for name in ("whole", "killed")]
    finish(folders[0], "vqgan", VQLCMD_NPROC="2")
    process = start(folders[1], "vqgan", VQLCMD_NPROC="2")
    wait_until(lambda: bool(list(folders[1].glob(".state/vqgan/*/[0-9]*.pt"))))
    workers = children(process.pid)
    end(process)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == code, text
    wait_until(lambda: not any(alive(worker) for worker in workers))
    assert "vqgan: goes on from step" in finish(folders[1], "vqgan", VQLCMD_NPROC="2")
    assert len({sha256(folder / "data/vqgan.safetensors") for folder in folders}) == 1


@pytest.mark.parametrize("layout", ["ours", "taming"])
def test_a_published_tokenizer_is_trained_further_with_the_architecture_of_its_file(
    trained: Path, tmp_path: Path, layout: str
) -> None:
    if layout == "ours":
        begun = tmp_path / "begun.safetensors"
        shutil.copy(trained / "data" / "vqgan.safetensors", begun)
    else:
        begun = tamings(tmp_path, made(trained).state_dict())
    other = merge(changes(steps=3), {"vqgan": {"init": str(begun), "n_embed": 64, "ch_mult": [1, 2, 2]}})
    run_stages(prepare(tmp_path / "run", other), "vqgan")
    before, after = made(trained), made(tmp_path / "run")
    # A file of taming-transformers' does not say its resolution, and no layer here depends on it.
    assert dataclasses.replace(after.architecture, resolution=before.architecture.resolution) == before.architecture
    assert not torch.equal(before.codebook, after.codebook)
    assert (before.codebook - after.codebook).abs().max() < 0.5 * before.codebook.abs().max()


def test_one_whose_codes_are_chosen_otherwise_is_refused_in_one_line(tmp_path: Path) -> None:
    begun = tmp_path / "begun.safetensors"
    vqgan.save(seeded(Architecture(**{**vars(TINY), "variant": Variant(gumbel=True)})), begun, {})
    folder = prepare(tmp_path / "run", merge(changes(), {"vqgan": {"init": str(begun)}}))
    with pytest.raises(ConfigError, match="cannot be trained here"):
        run_stages(folder, "vqgan")


def test_a_tokenizer_cannot_be_both_taken_and_trained_further(tmp_path: Path) -> None:
    folder = prepare(tmp_path / "run", {"vqgan": {"init": "a", "checkpoint": "b"}})
    with pytest.raises(ConfigError, match=r"vqgan\.init is trained further: set one to null"):
        run_stages(folder, "vqgan")


def test_a_holdout_that_leaves_nothing_to_train_on_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQLCMD_IMAGES", str(tmp_path))
    for number in range(2):
        (tmp_path / "two").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "two" / f"{number}.png")
    folder = prepare(tmp_path / "run", {})
    manifest.write(manifest.scan("two", tmp_path / "two"), folder / "data" / "manifests" / "two.json")
    write_params(folder, merge(changes(), {"dataset": "two", "tokenize": {"holdout": 0.999}}))
    with pytest.raises(ConfigError, match="leaves none of 2 images"):
        run_stages(folder, "vqgan")
