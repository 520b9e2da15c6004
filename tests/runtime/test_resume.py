"""State and files are whole or absent, have one owner, and belong to one configuration."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.factory import model_params, normal
from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.files import atomic_write, sha256, write_json
from vqlcmd.runtime.resume import State, fingerprint
from vqlcmd.runtime.safetensors_file import load_weights, save_weights

# Holds the lock the way another run of ours does, without waiting for PyTorch.
HOLDER = """
import fcntl, os, sys, time
lock = open(sys.argv[1], "a+")
fcntl.flock(lock, fcntl.LOCK_EX)
lock.truncate(0)
lock.write(str(os.getpid()))
lock.flush()
print("held", flush=True)
sys.stdin.read()
"""


def fail(*_: Any, **__: Any) -> None:
    raise OSError("no space left on device")


def half(values: Any, file: Path) -> None:
    file.write_bytes(b"half a state")
    fail()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_state_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    values = {"step": 3, "weights": [normal(2, 3)], "rows": [{"loss": 0.1}]}
    with State(tmp_path / "run") as state:
        assert state.load() is None
        state.save(values)
    with State(tmp_path / "run") as state:
        found = state.load()
    assert found is not None
    assert torch.equal(found["weights"][0], values["weights"][0])
    assert found["step"] == 3
    assert found["rows"] == [{"loss": 0.1}]


@pytest.mark.parametrize("broken", ["os.fsync", "os.replace", "torch.save"])
def test_a_crash_while_saving_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    with State(tmp_path / "run") as state:
        state.save({"step": 1})
        with monkeypatch.context() as patch:
            match broken:
                case "os.fsync":
                    patch.setattr(os, "fsync", fail)
                case "os.replace":
                    patch.setattr(Path, "replace", fail)
                case _:
                    patch.setattr(torch, "save", half)
            with pytest.raises(OSError, match="no space"):
                state.save({"step": 2})
        assert state.load() == {"step": 1}
        assert [name[:6] for name in names(tmp_path / "run")] == ["000001", "lock"]
        state.save({"step": 3})
        assert state.load() == {"step": 3}


def test_a_first_save_that_crashes_leaves_a_fresh_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", fail)
    with State(tmp_path / "run") as state:
        with pytest.raises(OSError, match="no space"):
            state.save({"step": 1})
        assert state.load() is None


def test_a_folder_has_one_writer_and_the_second_is_told_which(tmp_path: Path) -> None:
    with State(tmp_path / "run") as first:
        # Refused twice: the first refusal has not spoiled the lock, nor its owner's name.
        for _ in range(2):
            with pytest.raises(DataError, match=f"in use by process {os.getpid()}, ") as caught:
                State(tmp_path / "run").__enter__()
            assert str(tmp_path / "run") in str(caught.value)
        first.save({"step": 1})
    with State(tmp_path / "run") as second:
        assert second.load() == {"step": 1}


def test_a_reader_needs_no_lock_and_writes_nothing(tmp_path: Path) -> None:
    """The other processes of a distributed run."""
    with State(tmp_path / "run") as writer, State(tmp_path / "run", writer=False) as reader:
        writer.save({"step": 1})
        reader.save({"step": 2})
        assert reader.load() == {"step": 1}
        reader.finish()
        assert writer.load() == {"step": 1}


def test_another_process_is_named_and_its_death_frees_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-c", HOLDER, str(folder / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DataError, match=f"in use by process {other.pid}, "):
            State(folder).__enter__()
        other.kill()
    with State(folder):
        assert (folder / "lock").read_text() == str(os.getpid())


def test_finishing_forgets_the_run_and_what_a_killed_one_left_in_the_folder(tmp_path: Path) -> None:
    """A run killed while saving cannot remove its side file; the one that resumes it has another process id."""
    with State(tmp_path / "run") as state:
        state.save({"step": 1})
        (tmp_path / "run" / ".12345.pt").write_bytes(b"half a state")
        state.finish()
    assert names(tmp_path) == []


def test_equal_configurations_have_equal_fingerprints_and_others_do_not() -> None:
    values = model_params().model_dump()
    name = fingerprint(values, b"code")
    assert len(name) == 16
    assert int(name, 16) >= 0
    assert fingerprint(dict(reversed(values.items())), b"code") == name
    others = [
        fingerprint(model_params(seed=1).model_dump(), b"code"),
        fingerprint(model_params(train={"betas": [0.9, 0.98]}).model_dump(), b"code"),
        fingerprint(values, b"other"),
        fingerprint(values),
        fingerprint(b"code", values),
    ]
    assert len({name, *others}) == 6


def test_parts_of_a_fingerprint_do_not_run_into_each_other() -> None:
    assert fingerprint(b"ab", b"c") != fingerprint(b"a", b"bc")
    assert fingerprint("ab", "c") != fingerprint("a", "bc")


def test_a_fingerprint_is_the_beginning_of_a_sha256_that_other_tools_find_too() -> None:
    r"""From printf '\10\0\0\0\0\0\0\0{"a": 1}' | sha256sum: the part's length in eight bytes, then the part."""
    assert fingerprint({"a": 1}) == "dc2ba25a33d0133b"


def test_weights_are_read_back_with_their_description_and_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"weight": normal(3, 4).T, "steps": torch.tensor(5)}
    about = {"params": {"s": -2.0, "list": [1, 2]}, "classes": ["cat"], "a": None}
    for name in ("one", "two"):
        save_weights(tmp_path / name, "model", tensors, about)
    found, described = load_weights(tmp_path / "one", "model")
    assert described == about
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert sha256(tmp_path / "one") == sha256(tmp_path / "two")


def test_weights_that_are_missing_damaged_of_another_kind_or_foreign_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    # Not `dvc pull` too, since no remote is configured.
    with pytest.raises(DataError, match=r"model\.safetensors is missing: `dvc repro` makes it$"):
        load_weights(path, "model")
    save_weights(path, "proxy", {"weight": normal(3)}, {})
    with pytest.raises(DataError, match=r"model\.safetensors holds no model"):
        load_weights(path, "model")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"model\.safetensors is damaged"):
        load_weights(path, "proxy")
    save_file({"weight": normal(3)}, path)
    with pytest.raises(DataError, match=r"model\.safetensors holds no model"):
        load_weights(path, "model")


def test_a_file_appears_only_when_its_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with atomic_write(path) as side:
        side.write_text("one")
        assert not path.exists()
        assert side.suffix == ".txt"
    assert path.read_text() == "one"
    with pytest.raises(OSError, match="no space"), atomic_write(path) as side:
        half(None, side)
    assert path.read_text() == "one"
    assert names(path.parent) == ["file.txt"]


def test_json_has_sorted_keys_six_digits_and_null_for_what_is_no_number(tmp_path: Path) -> None:
    values = {"b": [math.nan, math.inf, (-math.inf,)], "a": {"x": 1 / 3, "n": 12345678}, "c": "é", "d": True}
    write_json(tmp_path / "a.json", values)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    expected = {"a": {"n": 12345678, "x": 0.333333}, "b": [None, None, [None]], "c": "é", "d": True}
    assert json.loads(text) == expected
    assert text == json.dumps(expected, indent=2, sort_keys=True) + "\n"


def test_json_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert names(tmp_path) == []
