"""tables/NAME.yaml -> a DVC experiment per row and seed -> tables/results/NAME.json.

An experiment is named by a digest of its parameters and of the code that it runs. So a row that several tables share
runs once, an interrupted table goes on where it stopped, and results of other code are computed again.
"""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vqlcmd.experiments.identity import identity_of, training_identity
from vqlcmd.experiments.queue import Queue
from vqlcmd.experiments.results import ResultsFile, alone, call
from vqlcmd.experiments.table import Run, Table, base_values, differences, load, runs
from vqlcmd.experiments.teachers import Lesson, lesson_of, placed, taught_by
from vqlcmd.runtime import pipeline
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.resume import fingerprint
from vqlcmd.runtime.yaml_file import read_yaml

MACHINE_MADE = ("metrics/", "dvc.lock", "tables/results/")


@alone()
def run_table(
    name: str,
    seeds: Sequence[int],
    jobs: int,
    preset: str | None,
    rows: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> bool:
    """Runs the experiments of a table that are missing, of all `rows` or of these; returns whether all ended well.

    Raises ConfigError for a row that the table does not have, if Git has uncommitted changes, and while another table
    runs in this clone.
    """
    table, base = load(name), base_values(preset)
    wanted, lessons = _planned(table, rows, base, seeds)
    _raise_if_changed()
    book = ResultsFile(name, base, preset, table.stages)
    missing = {
        identity: run
        for identity, run in wanted
        if not (book.has(run, identity) or book.reuse(run, identity) or book.collect(run, identity))
    }
    say(f"{name}: {len(wanted)} experiments, {len(wanted) - len(missing)} of them done")
    shared = differences(base_values(None), base) if preset else {}
    queue = Queue(table, shared, jobs, say)
    # Background processes of a shell ignore SIGINT, and batch systems send SIGTERM: it counts as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        failed = _run(queue, book, missing, {each: lessons[each] for each in missing if each in lessons})
    except KeyboardInterrupt:
        queue.cancel()
        raise
    for identity, run in wanted:
        # Rows that are the same experiment at this scale: it ran once, for the last of them.
        if identity in missing and not book.has(run, identity):
            book.reuse(run, identity)
    for problem in failed:
        say(problem)
    return not failed


def _planned(
    table: Table, rows: Sequence[str], base: dict[str, Any], seeds: Sequence[int]
) -> tuple[list[tuple[str, Run]], dict[str, Lesson]]:
    """Every experiment with its identity, and {identity: whom it learns from} of the students among them."""
    wanted, lessons = list[tuple[str, Run]](), dict[str, Lesson]()
    for run in runs(table.only(rows), base, list(dict.fromkeys(seeds))):
        if lesson := lesson_of(table, base, run):
            run = taught_by(run, base, lesson)
            lessons[identity_of(run.params)] = lesson
        wanted.append((identity_of(run.params, table.stages), run))
    return wanted, lessons


def _run(queue: Queue, book: ResultsFile, missing: dict[str, Run], lessons: dict[str, Lesson]) -> list[str]:
    """Runs what is missing, teachers before students; returns a message for each thing that failed.

    `lessons` are those of the students in `missing`.
    """
    students = {identity: run for identity, run in missing.items() if identity in lessons}
    others = {identity: run for identity, run in missing.items() if identity not in lessons}
    others |= {lesson.identity: lesson.teacher for lesson in lessons.values() if not placed(lesson)}
    failed = _prepare(queue, others | students)
    if failed:
        return failed
    failed = [problem for wave in _waves(others) for problem in queue.run(wave, book)]
    ready = {identity: run for identity, run in students.items() if placed(lessons[identity])}
    failed += [problem for wave in _waves(ready) for problem in queue.run(wave, book)]
    untaught = [(run, lessons[identity].teacher) for identity, run in students.items() if identity not in ready]
    failed += dict.fromkeys(
        f"{run.row}, seed {run.seed} has not run, for want of the model of {teacher.row}, its teacher: "
        "the same command tries again"
        for run, teacher in untaught
    )
    return failed


def _prepare(queue: Queue, missing: dict[str, Run]) -> list[str]:
    """Runs what experiments side by side have in common; returns a message if that failed."""
    shared = _shared(queue.table, list(missing.values())) if queue.jobs > 1 and len(missing) > 1 else []
    if not shared:
        return []
    first = next(iter(missing.values()))
    return queue.prepare(identity_of(first.params, shared), shared, first)


def _shared(table: Table, runs: Sequence[Run]) -> list[str]:
    """The stages of dvc.yaml that come out alike in all of `runs`."""
    every, root = read_yaml(Path("dvc.yaml"))["stages"], Path()

    def kinds(stage: str) -> set[str]:
        needed = pipeline.with_needed([stage], root)
        return {fingerprint(pipeline.parameters(run.params.model_dump(mode="json"), root, needed)) for run in runs}

    return [stage for stage in pipeline.with_needed(table.stages or every, root) if len(kinds(stage)) == 1]


def _waves(missing: dict[str, Run]) -> list[dict[str, Run]]:
    """First one experiment per model, then those that only sample from it: no model is trained twice at once."""
    first: dict[str, str] = {}
    for identity, run in missing.items():
        first.setdefault(training_identity(run.params), identity)
    waves = [{i: run for i, run in missing.items() if i in first.values()}]
    waves.append({i: run for i, run in missing.items() if i not in first.values()})
    return [wave for wave in waves if wave]


def _raise_if_changed() -> None:
    status = call(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.splitlines()
    changed = [line[3:] for line in status if not line[3:].startswith(MACHINE_MADE)]
    if changed:
        raise ConfigError(
            f"{changed[0]} has changes that are not committed, and every row would inherit them: commit or stash them"
        )
