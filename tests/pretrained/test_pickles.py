"""Files of torch.save are read as data: tensors come out right, and nothing that a file asks for is run."""

import collections
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.factory import normal
from vqlcmd.pretrained.pickles import View
from vqlcmd.pretrained.tensors import read_tensors
from vqlcmd.pretrained.torch_files import read_pickled
from vqlcmd.runtime.errors import DataError

TENSORS = {
    "plain": normal(3, 4),
    "empty": torch.zeros(0, 3),
    "scalar": torch.tensor(2.5),
    "turned": normal(5, 2, 3, seed=1).permute(2, 0, 1),
    "part": normal(10, seed=2)[3:7],
    "half": normal(4, seed=3).half(),
    "short": normal(4, seed=4).bfloat16(),
    "double": normal(4, seed=5).double(),
    "whole": torch.arange(5),
}


def put(path: Path, content: Any, zipped: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_every_tensor_comes_out_as_torch_load_reads_it(tmp_path: Path, zipped: bool) -> None:
    module = torch.nn.Linear(2, 3)
    path = put(tmp_path / "a.pt", {**TENSORS, "parameter": module.weight, "shared": TENSORS["plain"].T}, zipped)
    expected = torch.load(path, weights_only=True)
    found = read_tensors(path)
    assert found.shapes == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    for name, tensor in found.read(found.shapes).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name].float()), name


@pytest.mark.parametrize("zipped", [True, False])
def test_the_bookkeeping_of_a_training_framework_is_stubbed_and_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool
) -> None:
    """Lightning's checkpoints refer to its classes; so do configurations and paths kept beside the weights."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
        monkeypatch.setitem(sys.modules, part, module)
    callback: Any = type("ModelCheckpoint", (dict,), {"__module__": name})
    monkeypatch.setattr(module, "ModelCheckpoint", callback, raising=False)
    instance = callback(monitor="val/rec_loss")
    instance.best = [
        Path("/somewhere"),
        {1, 2},
        3 + 4j,
        slice(1, 2),
        collections.Counter("aab"),
        range(3),
        bytearray(3),
    ]
    content = {
        "callbacks": {callback: {"best_model_path": "x"}},
        "instance": instance,
        "numbers": [normal(2).numpy(), normal(2).numpy()[0], torch.float32, torch.Size([1, 2]), torch.device("cpu")],
        "lists": collections.defaultdict(list, {"a": [1]}),
        "state_dict": collections.OrderedDict(TENSORS),
    }
    path = put(tmp_path / "last.ckpt", content, zipped)
    monkeypatch.undo()
    assert name not in sys.modules
    found = read_tensors(path)
    assert list(found.shapes) == list(TENSORS)
    assert torch.equal(found.read(["plain"])["plain"], TENSORS["plain"])
    assert "pytorch_lightning" not in sys.modules


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_and_altered_files_are_one_line(tmp_path: Path, zipped: bool) -> None:
    whole = put(tmp_path / "whole.pt", {"a": normal(1000)}, zipped).read_bytes()
    path = tmp_path / "a.pt"
    for length in (0, 1, 10, 50, 300, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.pt is damaged|a\.pt is a pickle") as caught:
            read_tensors(path).read(["a"])
        assert "\n" not in str(caught.value)
    if zipped:
        path.write_bytes(whole.replace(normal(1000).numpy().tobytes(), bytes(4000)))
        with pytest.raises(DataError, match="CRC"):
            read_tensors(path).read(["a"])


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    for content, what in (
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b'{"model": 1}', "JSON"),
        (pickle.dumps({"a": 1}), "a pickle, but not by torch.save"),
    ):
        path.write_bytes(content)
        assert what in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("vq-f4/model.ckpt", b"x")
    assert "is an archive of vq-f4/model.ckpt: unpack it" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"x")
        archive.writestr("a/constants.pkl", b"x")
    assert "TorchScript" in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"x")
        archive.writestr("a/byteorder", b"big")
    assert "big-endian" in refused(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(1000))
    assert "is compressed" in refused(path)
    assert "cannot be printed" in refused(put(path, {"a\nb": torch.zeros(2)}, True))
    assert "holds no tensors by name" in refused(put(path, [torch.zeros(2)], True))
    assert "holds no tensors by name" in refused(put(path, torch.nn.Linear(2, 2), True))


def test_only_the_tensors_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thirds of a training run's file are the optimiser's."""
    path = put(tmp_path / "a.pt", {"state_dict": {"a": normal(10)}, "optimizer": {"b": normal(1000)}}, True)
    read: list[str] = []
    original = zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda self, name: (read.append(name), original(self, name))[1])
    assert torch.equal(read_tensors(path).read(["a"])["a"], normal(10))
    assert len([name for name in read if "/data/" in name]) == 1


def test_the_tree_keeps_its_form(tmp_path: Path) -> None:
    tree, _ = read_pickled(put(tmp_path / "a.pt", {"a": [1, "x", (2.5, None)], "b": {"c": torch.zeros(2, 3)}}, True))
    assert tree["a"] == [1, "x", (2.5, None)]
    assert isinstance(tree["b"]["c"], View)
    assert tree["b"]["c"].shape == (2, 3)


def test_a_record_whose_own_name_is_damaged_is_one_line(tmp_path: Path) -> None:
    """The name stands twice in a zip file; the second one is read when a tensor is, and was a traceback."""
    path = put(tmp_path / "a.pt", {"a": normal(10)}, True)
    whole = bytearray(path.read_bytes())
    start = whole.index(b"PK\x03\x04", whole.index(b"data/0") - 60)
    whole[start + 7] |= 0x08  # "This name is UTF-8."
    whole[start + 30] = 0xFF
    path.write_bytes(whole)
    found = read_tensors(path)
    with pytest.raises(DataError, match=r"a\.pt is damaged"):
        found.read(["a"])
