"""hf:// places, by the hub's own client against a stand-in for the hub on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import vqlcmd
from tests.conftest import prepare, run_stages
from tests.factory import build, codebook, params
from tests.hub import Hub, running
from tests.pipeline_imports import ROOT
from tests.tokenizers import TINY, seeded
from vqlcmd import methods
from vqlcmd.pretrained import hub
from vqlcmd.runtime.artefacts import exported
from vqlcmd.runtime.errors import ConfigError, DataError, UserError
from vqlcmd.runtime.files import sha256
from vqlcmd.tokenizer import vqgan


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The client reads its variables when it is imported, so what they set is set."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setenv("no_proxy", "*")
    with running() as here:
        monkeypatch.setattr(constants, "ENDPOINT", here.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{here.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        # Uploads by Xet, which the real hub has, need a service of their own.
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
        yield here


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An exported folder of a tiny model with three classes."""
    return exported_model(tmp_path / "given")


def exported_model(folder: Path) -> Path:
    vqgan.save(seeded(TINY), folder / exported.TOKENIZER, {})
    header = {"tokens": 16, "grid": [4, 4], "classes": ["a", "b", "c"]}
    header["vqgan_digest"] = sha256(folder / exported.TOKENIZER)
    method = build(tokens=16, codes=TINY.n_embed, classes=3)
    methods.save_method(folder / exported.MODEL, method, params(), header, codebook(TINY.n_embed))
    exported.describe(folder, {})
    return folder


def test_a_published_model_samples_the_same_bytes_when_it_is_loaded_from_the_hub(server: Hub, model: Path) -> None:
    address = hub.publish("hf://me/digits", model, private=False)
    commit, files = server.repositories["me/digits"][-1]
    assert address.endswith(commit)
    assert set(files) == {".gitattributes", exported.ABOUT, *exported.CHECKED}
    drawn = vqlcmd.load(str(model)).sample([0, 2], steps=2)
    for place in ("hf://me/digits", f"hf://me/digits@{commit}"):
        assert torch.equal(vqlcmd.load(place).sample([0, 2], steps=2), drawn)


def test_a_second_publication_leaves_nothing_of_the_first_and_the_first_is_still_there_by_its_commit(
    server: Hub, model: Path, tmp_path: Path
) -> None:
    (model / "old.txt").write_text("of the first")
    hub.publish("hf://me/digits", model, private=False)
    first = server.repositories["me/digits"][-1][0]
    (model / "old.txt").unlink()
    hub.publish("hf://me/digits", model, private=False)
    assert "old.txt" not in server.repositories["me/digits"][-1][1]
    assert first in str(hub.model_folder(f"hf://me/digits@{first}"))


def test_what_was_fetched_once_is_taken_from_the_cache(server: Hub, model: Path) -> None:
    server.commit("me/digits", {str(each.relative_to(model)): each.read_bytes() for each in model.rglob("*.*")})
    hub.model_folder("hf://me/digits")
    server.asked.clear()
    vqlcmd.load("hf://me/digits")
    assert not [line for line in server.asked if "/resolve/" in line]


@pytest.mark.parametrize("place", ["hf://me/digits", "hf://me/digits/vqgan.safetensors", "hf://me/digits/deep/er"])
def test_a_tokenizer_of_the_hub_is_a_checkpoint(server: Hub, model: Path, tmp_path: Path, place: str) -> None:
    files = {each: (model / each).read_bytes() for each in (exported.ABOUT, *exported.CHECKED)}
    server.commit("me/digits", {**files, "deep/er/vqgan.safetensors": files[exported.TOKENIZER], "big.bin": b"0"})
    folder = prepare(tmp_path / "run", {"vqgan": {"checkpoint": place}})
    run_stages(folder, "vqgan")
    ours, theirs = (vqgan.load(path) for path in (folder / "data/vqgan.safetensors", model / exported.TOKENIZER))
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name
    assert not [line for line in server.asked if "big.bin" in line or "model.safetensors" in line]


def test_a_file_that_is_another_than_the_exported_one_is_not_loaded(server: Hub, model: Path) -> None:
    files = {each: (model / each).read_bytes() for each in (exported.ABOUT, *exported.CHECKED)}
    vqgan.save(seeded(TINY, seed=1), model / exported.TOKENIZER, {})
    server.commit("me/digits", {**files, exported.TOKENIZER: (model / exported.TOKENIZER).read_bytes()})
    for load in (vqlcmd.load, hub.checkpoint):
        with pytest.raises(DataError, match=r"vqgan\.safetensors is not the file whose digest is in"):
            load("hf://me/digits")


@pytest.mark.parametrize(
    ("place", "error", "says"),
    [
        ("hf://nobody/nothing", DataError, "the hub has no such repository, or it is private"),
        ("hf://me/secret", DataError, "the hub has no such repository, or it is private"),
        ("hf://me/digits@v9", DataError, "no such revision"),
        ("hf://me/digits/no.ckpt", DataError, "there is no such file in it"),
        ("hf://me/empty", DataError, r"holds neither vqgan\.safetensors nor"),
        ("hf://me", ConfigError, "is no place of the hub"),
        ("hf://me/digits/../../x", ConfigError, "is no place of the hub"),
        ("HF://me/digits", ConfigError, "is no place of the hub"),
        ("hf://me/dig--its", UserError, "me/dig--its"),
    ],
)
def test_what_is_not_there_is_one_line(server: Hub, place: str, error: type[Exception], says: str) -> None:
    server.commit("me/digits", {"vqgan.safetensors": b""})
    server.commit("me/empty", {"README.md": b""})
    server.commit("me/secret", {"vqgan.safetensors": b""})
    server.private.add("me/secret")
    with pytest.raises(error, match=says) as caught:
        hub.checkpoint(place)
    assert "\n" not in str(caught.value)


def test_a_repository_that_publish_did_not_make_is_no_model(server: Hub) -> None:
    server.commit("me/other", {"vqgan.safetensors": b"", "model/model.safetensors": b""})
    with pytest.raises(DataError, match=r"hf://me/other holds no vqlcmd\.json"):
        vqlcmd.load("hf://me/other")


def test_without_the_client_a_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'vqlcmd\[hub\]'"):
        vqlcmd.load("hf://me/digits")


def test_a_hub_that_cannot_be_reached_is_one_line(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    constants: Any = sys.modules["huggingface_hub.constants"]
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match="hf://me/digits") as caught:
        vqlcmd.load("hf://me/digits")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_commands_publish_and_sample_by_the_clients_variables(server: Hub, model: Path, tmp_path: Path) -> None:
    variables = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment = {**os.environ, **variables, "HF_TOKEN": "hf_of_nobody", "PYTHONPATH": str(ROOT)}
    for command in (
        ("publish", "hf://me/digits", str(model)),
        ("sample", "--model", "hf://me/digits", "--count", "2", "--steps", "2", "--out", "drawn"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "vqlcmd.cli.main", *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2
