"""What a disk refuses: one line with file, reason and remedy, exit 1, and a state that the next run goes on from."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import TINY, inside, merge, run_stages, write_params
from vqlcmd.runtime import files, launcher, resume
from vqlcmd.runtime.artefacts import write_errors
from vqlcmd.runtime.files import atomic_write, sha256, write_json

# A shell's `ulimit -f` in Python; 200 kB is more than any text and less than a state or a model.
LIMITED = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"


def limited(folder: Path, stage: str, size: int) -> subprocess.CompletedProcess[str]:
    code = LIMITED.format(size=size) + f"import stages.{stage} as s; sys.exit(s.main())"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Of stderr, without the progress."""
    assert "Traceback" not in done.stderr, done.stderr
    return [line for line in done.stderr.splitlines() if re.match(r"\w+: .*; .* run the same command again$", line)]


def test_a_state_that_the_disk_refuses_is_one_line_and_the_state_before_it_stays_usable(
    copy: Path, finished: Path
) -> None:
    """torch says `[enforce fail at inline_container.cc:664] . unexpected pos 128 vs 22`, with a traceback."""
    long = merge(TINY, {"train": {"save_every": 10}})
    write_params(copy, long)
    run_stages(copy, "train")
    expected = sha256(copy / "data/model/model.safetensors")
    done = limited(copy, "train", 100_000)
    assert done.returncode == 1, done.stderr
    found = lines(done)
    assert len(found) == 1, done.stderr
    assert ".state/train/" in found[0]
    assert "the file is larger than this disk or shell allows" in found[0]
    assert not list(copy.glob(".state/train/*/.*.pt")), "nothing half-written"
    run_stages(copy, "train")
    assert sha256(copy / "data/model/model.safetensors") == expected


@pytest.mark.parametrize(
    ("stage", "size", "file"),
    [
        pytest.param("vqgan", 20_000, "data/vqgan.safetensors", marks=pytest.mark.slow),
        pytest.param("tokenize", 10_000, ".state/tokenize/", marks=pytest.mark.slow),
        pytest.param("reference", 20_000, "data/reference/", marks=pytest.mark.slow),
        ("sample", 1_000, "data/samples"),
        pytest.param("figures", 2_000, "metrics/", marks=pytest.mark.slow),
        ("bound", 10, "metrics/bound.json"),
        pytest.param("evaluate", 300, "metrics/protocol.json", marks=pytest.mark.slow),
    ],
)
def test_every_stage_says_in_one_line_which_file_is_too_large(copy: Path, stage: str, size: int, file: str) -> None:
    before = sha256(copy / "metrics/evaluate.json")
    done = limited(copy, stage, size)
    assert done.returncode == 1, done.stderr
    found = lines(done)
    assert len(found) == 1, done.stderr
    assert "larger than this disk or shell allows" in found[0]
    assert sha256(copy / "metrics/evaluate.json") == before
    assert not [path for path in copy.rglob(".*") if path.is_file()], "no side file is left"


@pytest.mark.parametrize("stage", ["bound", "evaluate", "figures"])
def test_a_file_where_a_folder_belongs_is_one_line(copy: Path, stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copy / "metrics")
    (copy / "metrics").write_text("mine", encoding="utf-8")
    with inside(copy):
        module = __import__(f"stages.{stage}", fromlist=["main"])
        assert launcher.main(stage, module.run, parallel=False) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{stage}: ")]
    assert said == [
        f"{stage}: metrics: a file is where a folder belongs; move it away, then run the same command again"
    ]
    assert (copy / "metrics").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO, errno.EFBIG])
def test_whatever_the_disk_says_the_line_names_the_file_and_not_its_side_file(tmp_path: Path, number: int) -> None:
    for filename in (None, "side"):
        with pytest.raises(OSError, match=os.strerror(number)) as caught, atomic_write(tmp_path / "x.json") as side:
            raise OSError(number, os.strerror(number), *([str(side)] if filename else []))
        line = write_errors.one_line(caught.value)
        assert line is not None
        assert line.startswith(f"{tmp_path / 'x.json'}: ")
        assert line.endswith("then run the same command again")
    assert list(tmp_path.iterdir()) == []


def test_libraries_that_name_no_file_are_understood(tmp_path: Path) -> None:
    """A full device: torch's, numpy's and safetensors' own errors."""

    def by_torch() -> None:
        torch.save({"x": torch.zeros(10**5)}, "/dev/full")

    def by_numpy() -> None:
        with Path("/dev/full").open("wb") as file:
            np.zeros(10**5).tofile(file)

    def by_safetensors() -> None:
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(4)}, str(tmp_path / "none" / "x"))

    for write in (by_torch, by_numpy, by_safetensors):
        with pytest.raises(OSError) as caught, write_errors.writing(tmp_path / "ours.pt"):
            write()
        line = write_errors.one_line(caught.value)
        assert line is not None
        assert line.startswith(f"{tmp_path / 'ours.pt'}: ")


def test_a_bug_stays_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), write_errors.writing(tmp_path):
        raise RuntimeError("shapes cannot be multiplied")
    assert write_errors.one_line(OSError("of nobody knows what")) is None


def test_the_command_line_says_it_in_one_line_too(copy: Path) -> None:
    (copy / "out").mkdir()
    (copy / "out" / "000000-0.png").mkdir()
    command = [sys.executable, "-m", "vqlcmd.cli.main", "decode", "--out", "out"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == (
        "vqlcmd: out/000000-0.png: a folder is where a file belongs; move it away, then run the same command again\n"
    )


def test_a_killed_writers_side_file_is_removed_by_the_next_one(tmp_path: Path) -> None:
    """kill -9 while a picture is written left `metrics/.grid.PID.png` for ever."""
    path = tmp_path / "grid.png"
    code = (
        "import os, signal, sys; from pathlib import Path; from vqlcmd.runtime.files import atomic_write\n"
        f"with atomic_write(Path({str(path)!r})) as side:\n"
        "    side.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".grid.*.png"))) == 1
    living = tmp_path / f".grid.{files._HOST}.{os.getppid()}.png"
    foreign = tmp_path / ".grid.another-machine.1.png"
    for left in (living, foreign):
        left.write_text("theirs", encoding="utf-8")
    with atomic_write(path) as side:
        side.write_text("whole", encoding="utf-8")
    assert sorted(tmp_path.iterdir()) == sorted([path, living, foreign])


def test_a_killed_state_leaves_nothing_once_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / ".123456.pt").write_bytes(b"half")
    with resume.State(tmp_path) as state:
        state.save({"step": 1})
    assert not list(tmp_path.glob(".*.pt"))


def test_a_folder_where_json_belongs_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        write_json(tmp_path / "x.json", {})
    line = write_errors.one_line(caught.value)
    assert (
        line
        == f"{tmp_path / 'x.json'}: a folder is where a file belongs; move it away, then run the same command again"
    )
