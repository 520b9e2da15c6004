"""DVC's queue as `vqlcmd table run` sees it: workers that stop, rows that vanish, and what a running row says."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import inside
from tests.pipeline_imports import ROOT
from vqlcmd.experiments import queue
from vqlcmd.experiments.queue import Queue, last_line
from vqlcmd.experiments.table import Run, Table, experiment_name, runs
from vqlcmd.runtime.yaml_file import read_yaml

TASK = "3f2a9c1"
TABLE = Table.model_validate({"title": "T", "metrics": ["fid", "entropy"], "rows": {"a": {}}})


class Book:
    """Takes over what it is given."""

    def collect(self, run: Run, identity: str) -> bool:
        return True

    def rows(self) -> list[dict[str, object]]:
        return [{"row": "a", "seed": 0, "value": None, "metrics": {"fid_proxy": 1.0}}]


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> Run:
    """A row, and a clock that runs an hour at each look."""
    base = read_yaml(ROOT / "presets" / "digits.yaml")
    clock = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return runs(TABLE, base, [0])[0]


def watched(
    row: Run, states: list[str], monkeypatch: pytest.MonkeyPatch, folder: Path
) -> tuple[list[str], int, list[str]]:
    """What is said, how often workers are started, and what failed, where DVC tells these states one after the other.

    After the last one the row is done, unless that is "gone".
    """
    told: Iterator[str] = iter(states)
    starts, said, state = 0, [], ""

    def call(command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        nonlocal state
        text = ""
        if command[:3] == ["dvc", "queue", "status"]:
            state = next(told, state)
            text = f"{TASK}  {experiment_name(row, 'x')}  10:00 PM  {state}" if state not in ("", "gone") else ""
        return subprocess.CompletedProcess(command, 0, text, "")

    def start(command: list[str], **_: object) -> None:
        nonlocal starts
        assert command[:3] == ["dvc", "queue", "start"]
        starts += 1

    monkeypatch.setattr(queue, "call", call)
    monkeypatch.setattr(subprocess, "run", start)
    monkeypatch.setattr(queue, "experiments", lambda: {"x": "c" * 40} if state == "Success" else {})
    waiting = Queue(TABLE, {}, 1, said.append)
    monkeypatch.setattr(waiting, "fail_stale", lambda ours: None)
    with inside(folder):
        failed = waiting.run({"x": row}, Book())  # pyright: ignore[reportArgumentType]
    return said, starts, failed


def test_a_worker_that_stops_by_itself_is_started_again(
    row: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC's worker ended after 3 of 12 rows, by an error of its message library, and the rest waited for ever."""
    said, starts, failed = watched(row, ["", "", "Queued", "Queued", "Running", "Success"], monkeypatch, tmp_path)
    assert starts == 3, "at the beginning, and once for each look at which a row waited and none ran"
    assert failed == []
    assert said[-1].startswith("1/1  a, seed 0: fid 1.00, entropy - (")


def test_a_row_that_runs_without_a_process_is_queued_again(
    row: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker took a row while it was shutting down for lack of work: DVC said for ever that the row runs."""
    queued: list[set[str]] = []
    monkeypatch.setattr(Queue, "_enqueue_missing", lambda _, tasks: queued.append(set(tasks)))
    few, many = ["Running"] * (queue.LOOKS_UNTIL_DEAD - 1), ["Running"] * (queue.LOOKS_UNTIL_DEAD + 2)
    name = experiment_name(row, "x")
    for states, times in (([*few, "Success"], 1), ([*many, "Success"], 2), ([*few, "Queued", *few, "Success"], 1)):
        queued.clear()
        assert watched(row, states, monkeypatch, tmp_path)[2] == []
        assert queued == [{name}] * times
    monkeypatch.setattr(queue, "_alive", lambda record: True)
    record = tmp_path / queue.RECORDS / f"{TASK}{'0' * 33}" / "row.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}", encoding="utf-8")
    queued.clear()
    assert watched(row, [*many, "Success"], monkeypatch, tmp_path)[2] == []
    assert queued == [{name}]


def test_the_stages_of_a_table_are_what_dvc_is_asked_for(row: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(queue, "call", lambda command, check=True: asked.append(command))
    table = TABLE.model_copy(update={"stages": ["vqgan"]})
    Queue(table, {"drop": 0.1}, 1, print)._enqueue("a", row, ())
    assert asked == [["dvc", "exp", "run", "--queue", "--name", "a", "-S", "drop=0.1", "-S", "seed=0", "vqgan"]]


def test_a_row_that_is_neither_done_nor_queued_is_given_up(
    row: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, failed = watched(row, ["", "", "Running", "gone"], monkeypatch, tmp_path)
    assert failed == ["a, seed 0 is neither done nor in DVC's queue: the same command queues it again"]


def test_the_last_line_of_a_running_row_is_repeated(row: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command was silent for hours."""
    log = tmp_path / queue.RECORDS / f"{TASK}{'0' * 33}" / "row.out"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"old\n" * 10**4 + b"train 120/1700 \xc2\xb7 loss 1.2\x1b[2J\n\n")
    said, _, _ = watched(row, ["", "", "Running", "Success"], monkeypatch, tmp_path)
    assert said[0] == f"{experiment_name(row, 'x')}: train 120/1700 \u00b7 loss 1.2\\x1b[2J"
    with inside(tmp_path):
        assert last_line("another") == ""
        log.write_bytes(b"")
        assert last_line(TASK) == ""


def test_a_row_that_runs_again_has_not_failed(row: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC lists the task that failed below the one that runs."""
    lines = "84e0503  a  03:49 PM  Running\n4c6e645  a  03:36 PM  Failed\n1b6c8d7  b  03:36 PM  Failed\n"
    monkeypatch.setattr(queue, "call", lambda command: subprocess.CompletedProcess(command, 0, lines, ""))
    waiting = Queue(TABLE, {}, 1, print)
    assert waiting._status() == {"a": "Running", "b": "Failed"}
    assert waiting._listed()[-1] == ("84e0503", "a", "Running")


IDENTITY = "0123456789abcdef"
SHARED = f"shared-{IDENTITY}"


@pytest.mark.parametrize(
    ("states", "starts", "failed"),
    [
        (["Queued", "Running", "Success"], 2, []),
        # DVC looks at running tasks before queued ones: a task on its way from one to the other is in neither.
        (["Queued", "", "Running", "Success"], 2, []),
        (["Running", "Failed"], 1, [f"what all rows share failed; `dvc queue logs {SHARED}` says why"]),
        (
            ["Running", "", ""],
            1,
            ["what all rows share is neither done nor in DVC's queue: the same command queues it"],
        ),
    ],
)
def test_what_rows_share_is_waited_for(
    row: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, states: list[str], starts: int, failed: list[str]
) -> None:
    told, asked, state = iter([*[""] * 5, *states]), list[list[str]](), ""

    def call(command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        nonlocal state
        asked.append(command)
        text = ""
        if command[:3] == ["dvc", "queue", "status"]:
            state = next(told, state)
            text = f"{TASK}  {SHARED}  10:00 PM  {state}" if state else ""
        return subprocess.CompletedProcess(command, 0, text, "")

    monkeypatch.setattr(queue, "call", call)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command))
    monkeypatch.setattr(queue, "experiments", lambda: {IDENTITY: "c" * 40})
    said: list[str] = []
    with inside(tmp_path):
        found = Queue(TABLE, {}, 2, said.append).prepare(IDENTITY, ["tokenize", "reference"], row)
    assert next(told, None) is None
    assert [problem.startswith(text) for problem, text in zip(found, failed, strict=True)] == [True] * len(failed)
    assert said[0] == "tokenize, reference: once for all rows"
    assert [command[:3] for command in asked].count(["dvc", "queue", "start"]) == starts
    assert ["dvc", "exp", "run", "--queue", "--name", SHARED, "-S", "seed=0", "tokenize", "reference"] in asked
    assert asked[-1] == ["dvc", "exp", "remove", SHARED]


def test_rows_are_queued_with_the_lock_of_what_they_share_and_what_was_left_does_not_count(
    row: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a fresh clone each row trained the tokenizer again: DVC looked for the author's, which dvc.lock names."""
    states, locks = {SHARED: "Success"}, list[tuple[str, str]]()

    def call(command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        if command[:3] == ["dvc", "queue", "remove"]:
            states.clear()
        if command[:4] == ["dvc", "exp", "run", "--queue"]:
            assert command[5] not in states, "DVC has two of one name"
            states[command[5]] = "Success"
            locks.append((command[5], Path("dvc.lock").read_text(encoding="utf-8")))
        text = "".join(f"{TASK}  {name}  10:00 PM  {state}\n" for name, state in states.items())
        return subprocess.CompletedProcess(command, 0, "shared" if command[:2] == ["git", "show"] else text, "")

    monkeypatch.setattr(queue, "call", call)
    monkeypatch.setattr(queue, "experiments", lambda: {IDENTITY: "c" * 40, "x": "d" * 40})
    monkeypatch.setattr(subprocess, "run", lambda command, **_: None)
    waiting = Queue(TABLE, {}, 2, lambda _: None)
    with inside(tmp_path):
        Path("dvc.lock").write_text("the author's", encoding="utf-8")
        assert waiting.prepare(IDENTITY, ["tokenize"], row) == []
        assert waiting.run({"x": row}, Book()) == []  # pyright: ignore[reportArgumentType]
        assert Path("dvc.lock").read_text(encoding="utf-8") == "the author's"
    assert locks == [(SHARED, "the author's"), (experiment_name(row, "x"), "shared")]


def test_an_interruption_stops_what_rows_share(row: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = list[list[str]]()

    def call(command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        text = f"{TASK}  {SHARED}  10:00 PM  Running" if ["dvc", "queue", "start"] in asked else ""
        return subprocess.CompletedProcess(command, 0, text, "")

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, "call", call)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: asked.append(command[:3]))
    monkeypatch.setattr(time, "sleep", interrupted)
    waiting = Queue(TABLE, {}, 2, lambda _: None)
    with inside(tmp_path):
        with pytest.raises(KeyboardInterrupt):
            waiting.prepare(IDENTITY, ["tokenize"], row)
        waiting.cancel()
    assert asked[-1] == ["dvc", "queue", "kill", SHARED]
