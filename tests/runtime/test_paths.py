"""Numbers in environment variables: what `int` takes and what a person means are not the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vqlcmd.runtime import files, launcher, paths
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.files import atomic_write

READERS: dict[str, Callable[[], object]] = {
    "VQLCMD_WORKERS": paths.workers,
    "VQLCMD_NPROC": launcher._processes,
    "VQLCMD_TOKEN_MB": paths.token_memory,
    "VQLCMD_MICRO_BATCH": paths.micro_batch,
    "VQLCMD_PICTURE_MB": paths.picture_memory,
}


@pytest.mark.parametrize("variable", READERS)
@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e3", "\u00b2", "\u0663", "9" * 5000, "1_000", " 3", "\x1b[2J"])
def test_what_is_no_whole_number_is_one_line(variable: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A superscript two counts as a digit and is no number for `int`, nor are 5,000 digits: both were tracebacks."""
    monkeypatch.setenv(variable, text)
    with pytest.raises(ConfigError) as caught:
        READERS[variable]()
    line = str(caught.value)
    assert line.startswith(f"{variable} is ")
    assert line.isprintable()
    assert len(line) < 300


@pytest.mark.parametrize(("variable", "expected"), [("VQLCMD_WORKERS", 3), ("VQLCMD_NPROC", 3)])
def test_a_whole_number_is_read(variable: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "3")
    assert READERS[variable]() == expected


def test_a_file_that_is_called_like_a_side_file_of_nobody_stays(tmp_path: Path) -> None:
    odd = [tmp_path / f".grid.{files._HOST}.{owner}.png" for owner in ("\u00b2", "9" * 100, "x", "")]
    for path in odd:
        path.touch()
    with atomic_write(tmp_path / "grid.png") as side:
        side.touch()
    assert all(path.exists() for path in odd)
