"""Progress lines: the time that is left, of runs that begin anywhere and count by batches."""

import time

import pytest

from vqlcmd.runtime import progress


@pytest.mark.parametrize("first", [1, 256, 5000])
def test_the_time_left_is_that_of_the_counted_work_wherever_it_begins(
    first: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A first batch of 256 was taken for one image: 75 hours left of some minutes."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with progress.Progress("work", first + 4 * 256) as shown:
        clock[0] += 30
        shown.update(first, 256)
        assert "left" not in capsys.readouterr().out, "nothing is known yet"
        clock[0] += 20
        shown.update(first + 256, 256)
    line = capsys.readouterr().out.splitlines()[0]
    assert line == f"work {first + 256}/{first + 4 * 256} · 10 images/s · 1:00 left"
