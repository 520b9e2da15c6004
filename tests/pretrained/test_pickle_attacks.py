"""Files that ask for more than tensors: they are refused in one line, and nothing of what they ask for happens."""

import builtins
import collections
import importlib
import io
import os
import pickle
import pickletools
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pretrained.test_pickles import TENSORS, put, refused
from vqlcmd.pretrained.tensors import read_tensors
from vqlcmd.runtime.errors import DataError


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.args


def put_raw(path: Path, program: bytes) -> Path:
    """A zipped file with a pickle written by hand."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/data/0", bytes(16))
    return path


def test_a_class_whose_module_would_do_something_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of that name lies where Python would find it."""
    (tmp_path / "eager_module.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\nclass Thing:\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    thing = importlib.import_module("eager_module").Thing()
    path = put(tmp_path / "a.pt", {"thing": thing, "state_dict": TENSORS}, True)
    (tmp_path / "ran").unlink()
    del sys.modules["eager_module"]
    assert list(read_tensors(path).shapes) == list(TENSORS)
    assert "eager_module" not in sys.modules
    assert not (tmp_path / "ran").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists(), "torch.load does import it"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "attack",
    [
        lambda ran: Calls(os.system, f"touch {ran}"),
        lambda ran: Calls(eval, f"open({str(ran)!r}, 'w')"),
        lambda ran: Calls(exec, f"open({str(ran)!r}, 'w')"),
        lambda ran: Calls(open, str(ran), "w"),
        lambda ran: Calls(subprocess.Popen, ["touch", str(ran)]),
        lambda ran: Calls(importlib.import_module, "antigravity"),
        lambda ran: Calls(getattr, "x", "upper"),
        lambda ran: Calls(builtins.map, print, [1]),
        lambda ran: Calls(torch.load, str(ran)),
        lambda ran: Calls(torch.zeros, 3),
        lambda ran: Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(os.system, f"touch {ran}"))),
        lambda ran: Calls(torch.hub.load, "a/b", "c"),
        lambda ran: collections.OrderedDict(a=Calls(os.system, f"touch {ran}")),
        lambda ran: Calls(collections.OrderedDict, [(1, Calls(os.system, f"touch {ran}"))]),
        lambda ran: os.system,
    ],
    ids=range(15),
)
def test_a_file_that_names_anything_else_is_refused_and_nothing_runs(
    tmp_path: Path, zipped: bool, attack: Callable[[Path], Any]
) -> None:
    path = put(tmp_path / "a.pt", {"state_dict": TENSORS, "more": attack(tmp_path / "ran")}, zipped)
    modules = set(sys.modules)
    assert "is refused: it names " in refused(path)
    assert not (tmp_path / "ran").exists()
    assert set(sys.modules) == modules


def test_the_attacks_of_these_tests_do_work_elsewhere(tmp_path: Path) -> None:
    path = put(tmp_path / "a.pt", {"more": Calls(os.system, f"touch {tmp_path / 'ran'}")}, True)
    torch.load(path, weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        "posix\nsystem",
        "nt\nsystem",
        "commands\nPopen",
        "Queue\nQueue",
        "__builtin__\neval",
        "builtins\ngetattr",
        "builtins\nstr.format",
        "builtins\n__import__",
        "os\npath.os.system",
        "torch\nos.system",
        "torch._utils\n_rebuild_tensor_v2.__globals__",
        "torch.serialization\nload",
        "torch.jit\nload",
        "numpy.testing._private.utils\nruncommand",
        "numpy\nload",
        "runpy\n_run_code",
        "functools\npartial",
        "operator\nattrgetter",
        "types\nFunctionType",
        "collections\nnamedtuple",
        "some_package\nhelper",
        "copyreg\nadd_extension",
        "code\nInteractiveInterpreter",
    ],
)
def test_names_of_functions_are_refused_wherever_they_stand(tmp_path: Path, name: str) -> None:
    program = b"\x80\x02}X\x01\x00\x00\x00ac" + name.encode() + b"\ns."
    assert f"is refused: it names {name.replace(chr(10), '.')}" in refused(put_raw(tmp_path / "a.pt", program))


def test_a_name_cannot_break_the_line_of_the_error(tmp_path: Path) -> None:
    program = (
        b"\x80\x04" + pickle.SHORT_BINUNICODE + b"\x02os" + pickle.SHORT_BINUNICODE + b"\x07a\nb\x1b[2J" + b"\x93."
    )
    assert "\x1b" not in refused(put_raw(tmp_path / "a.pt", program))


def built(*pieces: bytes) -> bytes:
    program = b"\x80\x02" + b"".join(pieces) + b"."
    pickletools.dis(program, io.StringIO())
    return program


STATE = b"N}X\x08\x00\x00\x00functionK\x01s\x86b"  # BUILD with (None, {"function": 1}): attributes by setattr


@pytest.mark.parametrize(
    "target",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ccollections\nOrderedDict\n",
        b"csome.package\nThing\n",
        b"ctorch\nFloatStorage\n",
    ],
)
def test_the_stand_ins_cannot_be_changed_by_a_file(tmp_path: Path, target: bytes) -> None:
    """The pickle opcode BUILD sets attributes of whatever is on the stack."""
    assert "is damaged" in refused(put_raw(tmp_path / "a.pt", built(target, STATE)))
    good = put(tmp_path / "b.pt", TENSORS, True)
    assert torch.equal(read_tensors(good).read(["plain"])["plain"], TENSORS["plain"])


def tensor_program(offset: int = 0, size: str = "K\x04", stride: str = "K\x01", elements: bytes = b"K\x04") -> bytes:
    """A pickle of {"a": tensor} over the storage 0 of four float32 numbers."""
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + elements + b"tQ"
    )
    shape = b"(" + size.encode() + b"t(" + stride.encode() + b"t"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K" + bytes([offset]) + shape + b"\x89}tR"
    return built(b"}X\x01\x00\x00\x00a", tensor, b"s")


def test_a_tensor_cannot_reach_outside_of_its_storage(tmp_path: Path) -> None:
    assert read_tensors(put_raw(tmp_path / "a.pt", tensor_program())).read(["a"])["a"].tolist() == [0.0] * 4
    for program in (
        tensor_program(offset=1),
        tensor_program(size="K\x05"),
        tensor_program(stride="K\x02"),
        tensor_program(stride="K\x7f"),
        tensor_program(size="K\x7fK\x7f", stride="K\x00K\x00"),
    ):
        assert "is damaged" in refused(put_raw(tmp_path / "a.pt", program))
    path = put_raw(tmp_path / "a.pt", tensor_program(elements=b"K\x05"))
    with pytest.raises(DataError, match="16 of 20 bytes"):
        read_tensors(path).read(["a"])
