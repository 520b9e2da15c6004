"""DVC's queue: adds experiments, runs as many workers as asked for, and reports each experiment that ends."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vqlcmd.experiments.results import ResultsFile, call, experiments
from vqlcmd.experiments.table import Run, Table, experiment_name, mean_and_spread
from vqlcmd.runtime.artefacts.json_file import read_json
from vqlcmd.runtime.errors import DataError, shown

SECONDS_BETWEEN_POLLS = 2.0
SECONDS_BETWEEN_LOOKS = 15.0
SECONDS_BETWEEN_LINES = 60.0
LOOKS_TO_BE_SURE = 2
LOOKS_UNTIL_DEAD = 8
"""For how many looks a row without a process may be said to run: it has none while it is set up and collected."""
RECORDS = Path(".dvc/tmp/exps/run")
"""Where DVC records the process of each row and its output, by the full name of its task."""
LOCK = Path("dvc.lock")
LOG_BYTES = 4096
TOLD = 3
"""How many numbers of a finished row are printed: the first ones of its table."""
STATES = ("Queued", "Running", "Failed", "Success")


class Queue:
    """DVC's queue with `jobs` workers, which share the cores; all rows have the overrides in `preset`.

    `table` says which stages are run, and which numbers of a finished row are printed.
    """

    def __init__(self, table: Table, preset: dict[str, Any], jobs: int, say: Callable[[str], None]):
        self.table, self.preset = table, preset
        self.jobs, self.say, self.waiting = jobs, say, set[str]()
        self.lock: str | None = None

    def run(self, wave: dict[str, Run], book: ResultsFile) -> list[str]:
        """Queues experiments and waits for them; returns a message for each one that failed."""
        names = {experiment_name(run, identity): identity for identity, run in wave.items()}
        started = time.monotonic()

        def collect(_: dict[str, str]) -> set[str]:
            here = experiments()
            ended = {name for name in self.waiting if names[name] in here}
            for number, name in enumerate(ended, len(wave) - len(self.waiting) + 1):
                book.collect(wave[names[name]], names[name])
                self._report(wave[names[name]], book, number, len(wave), time.monotonic() - started)
            return ended

        failed = self._follow({name: (wave[identity], ()) for name, identity in names.items()}, collect)
        said = {name: f"{wave[names[name]].row}, seed {wave[names[name]].seed}" for name in failed}
        return [f"{said[name]} {problem}" for name, problem in failed.items()]

    def prepare(self, identity: str, stages: Sequence[str], run: Run) -> list[str]:
        """Runs `stages`, which come out alike in all rows, once, so that rows find them in DVC's cache.

        Rows that began them at the same time would want the same state in .state/, and all but one would fail.
        `identity` ends the name of the experiment. Returns a message if it failed.
        """
        name = f"shared-{identity}"
        self.say(f"{', '.join(stages)}: once for all rows")
        # What an interrupted command has left would count as done.
        self._remove(self._tasks("Success") & {name})
        if name not in self._tasks("Queued", "Running"):
            call(["dvc", "exp", "remove", name], check=False)
        failed = self._follow(
            {name: (run, stages)}, lambda status: {name} if status.get(name) == "Success" else set[str]()
        )
        if (revision := experiments().get(identity)) and not failed:
            self.lock = call(["git", "show", f"{revision}:{LOCK}"]).stdout
        call(["dvc", "exp", "remove", name], check=False)
        return [f"what all rows share {problem}" for problem in failed.values()]

    @contextmanager
    def _shared_lock(self) -> Iterator[None]:
        """Context in which dvc.lock is that of what rows share. Rows that are queued in it find that in DVC's cache.

        They start with a copy of the file. In a fresh clone it names what its author's machine has made: DVC would look
        for that, and not into its run cache.
        """
        if self.lock is None:
            yield
            return
        before = LOCK.read_bytes()
        try:
            LOCK.write_text(self.lock, encoding="utf-8")
            yield
        finally:
            LOCK.write_bytes(before)

    def _follow(
        self, tasks: dict[str, tuple[Run, Sequence[str]]], ended: Callable[[dict[str, str]], set[str]]
    ) -> dict[str, str]:
        """Queues what is not yet queued, and waits for all; returns what became of each one that did not end well.

        `tasks` is {experiment: its run, and its stages or none for the table's}. `ended` gets {experiment: state} as
        DVC last told, and returns those that have ended well.
        """
        self._enqueue_missing(tasks)
        self.waiting, failed = set(tasks), dict[str, str]()
        self._start()
        lost, looked, told, status, silent = 0, 0.0, time.monotonic(), {}, dict[str, int]()
        listed: list[tuple[str, str, str]] = []
        while self.waiting and lost < LOOKS_TO_BE_SURE:
            time.sleep(SECONDS_BETWEEN_POLLS)
            # Asking DVC costs the experiments a second of processor time; asking Git costs next to none.
            looking = time.monotonic() - looked > SECONDS_BETWEEN_LOOKS
            if looking:
                listed, looked = self._listed(), time.monotonic()
                status = {name: state for _, name, state in listed}
                if looked - told > SECONDS_BETWEEN_LINES:
                    told = looked
                    self._tell([(task, name) for task, name, state in listed if state == "Running" and name in tasks])
            # Asked after the status, so that an experiment which has left the queue meanwhile is among them.
            self.waiting -= ended(status)
            if not looking:
                continue
            for name in [each for each in self.waiting if status.get(each) == "Failed"]:
                self.waiting.remove(name)
                failed[name] = f"failed; `dvc queue logs {name}` says why"
            without = {name for task, name, state in listed if state == "Running" and not _runs(task)} & self.waiting
            silent = {name: silent.get(name, 0) + 1 for name in without}
            if dead := {name: tasks[name] for name, looks in silent.items() if looks == LOOKS_UNTIL_DEAD}:
                self._enqueue_missing(dead)
                self._start()
            states = {status.get(name) for name in self.waiting}
            lost = 0 if states & {"Queued", "Running"} else lost + 1
            if "Queued" in states and list(status.values()).count("Running") < self.jobs:
                # A worker may have stopped for lack of work just before these were queued, or on an error of its own.
                self._start()
        gone = "is neither done nor in DVC's queue: the same command queues it again"
        return failed | dict.fromkeys(self.waiting, gone)

    def cancel(self) -> None:
        """Removes waiting experiments from the queue and stops running ones; the saved state of a training stays."""
        self.say("stopping: the same command goes on from here")
        # In this order: a worker whose experiment is stopped takes the next one.
        self._remove(self._tasks("Queued") & self.waiting)
        self._kill(self._tasks("Running") & self.waiting)

    def _enqueue_missing(self, tasks: dict[str, tuple[Run, Sequence[str]]]) -> None:
        """Queues what neither waits nor runs, although DVC may say that it does."""
        self.fail_stale(set(tasks))
        self._remove(self._tasks("Failed") & set(tasks))
        queued = self._tasks("Queued", "Running")
        with self._shared_lock():
            for name, (run, stages) in tasks.items():
                if name not in queued:
                    self._enqueue(name, run, stages)

    def _enqueue(self, name: str, run: Run, stages: Sequence[str]) -> None:
        overrides = {**self.preset, **run.overrides}
        options = [part for key, value in overrides.items() for part in ("-S", f"{key}={_hydra(value)}")]
        call(["dvc", "exp", "run", "--queue", "--name", name, *options, *(stages or self.table.stages)])

    def _start(self) -> None:
        threads = os.environ.get("OMP_NUM_THREADS") or str(max((os.cpu_count() or 1) // self.jobs, 1))
        # The workers outlive this command and would keep its pipes open.
        subprocess.run(
            ["dvc", "queue", "start", "--jobs", str(self.jobs)],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )

    def fail_stale(self, ours: set[str]) -> None:
        """Marks rows as failed that DVC believes to be running although their process is gone, as after a crash.

        They can then be queued again.
        """
        for task, name, state in self._listed():
            if state == "Running" and name in ours and not _runs(task):
                # DVC would signal whatever process has that number by now.
                for record in _records(task):
                    record.unlink()
                self._kill({name})

    def _status(self) -> dict[str, str]:
        """{experiment: Queued, Running, Failed or Success}."""
        return {name: state for _, name, state in self._listed()}

    def _listed(self) -> list[tuple[str, str, str]]:
        """(task, experiment, state) of each row in the queue, failed ones first: one that runs again is there twice."""
        lines = [line.split() for line in call(["dvc", "queue", "status"]).stdout.splitlines()]
        found = [(words[0], words[1], words[-1]) for words in lines if words and words[-1] in STATES]
        return sorted(found, key=lambda row: row[2] != "Failed")

    def _tasks(self, *states: str) -> set[str]:
        return {name for name, state in self._status().items() if state in states}

    def _kill(self, tasks: Iterable[str]) -> None:
        tasks = sorted(tasks)
        if tasks:
            call(["dvc", "queue", "kill", *tasks], check=False)

    def _remove(self, tasks: Iterable[str]) -> None:
        tasks = sorted(tasks)
        if tasks:
            call(["dvc", "queue", "remove", *tasks], check=False)

    def _tell(self, running: list[tuple[str, str]]) -> None:
        """Prints the last line that each running row has printed, since a row may take hours."""
        for task, name in running:
            line = last_line(task)
            if line:
                self.say(f"{name}: {line}")

    def _report(self, run: Run, book: ResultsFile, done: int, total: int, seconds: float) -> None:
        same = {"row": run.row, "seed": run.seed, "value": run.value}
        metrics = next(row["metrics"] for row in book.rows() if all(row[key] == same[key] for key in same))
        value = "" if run.value is None else f", {run.value}"
        left = seconds / done * (total - done) / 60
        told = [f"{name} {mean_and_spread([metrics], name)}" for name in self.table.metrics[:TOLD]]
        self.say(
            f"{done}/{total}  {run.row}{value}, seed {run.seed}: {', '.join(told)} "
            f"({seconds / 60:.0f} min, about {left:.0f} left)"
        )


def last_line(task: str) -> str:
    """The last line that a row printed, from the log that DVC keeps of its task; "" if there is none yet."""
    for log in RECORDS.glob(f"{task}*/*.out"):
        try:
            with log.open("rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - LOG_BYTES, 0))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            continue
        return shown(next((line for line in reversed(lines) if line.strip()), ""), 200)
    return ""


def _records(task: str) -> list[Path]:
    return list(RECORDS.glob(f"{task}*/*.json"))


def _runs(task: str) -> bool:
    """Whether a row has a process."""
    return any(_alive(record) for record in _records(task))


def _alive(record: Path) -> bool:
    """Whether the process that DVC recorded for a row is still running that row."""
    import psutil

    try:
        # DVC removes the record of a row that has just ended.
        command = psutil.Process(read_json(record, "DVC writes it")["pid"]).cmdline()
    except (psutil.Error, DataError, ValueError, KeyError, TypeError):
        return False
    return record.stem in " ".join(command)


def _hydra(value: Any) -> str:
    """A value as `-S KEY=VALUE` reads it."""
    return "null" if value is None else json.dumps(value) if isinstance(value, list | bool) else str(value)
