"""tables/NAME.yaml -> a DVC experiment per row and seed -> tables/results/NAME.json -> Markdown and pictures.

An experiment is named by a digest of its parameters and of the code that it runs. So a row that several tables share
runs once, an interrupted table goes on where it stopped, and results of other code are computed again.
"""

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vqlcmd.experiments.queue import Queue
from vqlcmd.experiments.results import ResultsFile, call, fetched
from vqlcmd.experiments.table import Run, Table, differences, markdown, metric_of, read_table, runs
from vqlcmd.experiments.teachers import placed, taught_by, teacher_of
from vqlcmd.params import RunParams
from vqlcmd.runtime import pipeline
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.resume import fingerprint
from vqlcmd.runtime.yaml_file import read_yaml

TABLES = Path("tables")
MACHINE_MADE = ("metrics/", "dvc.lock", "tables/results/")

Line = tuple[list[float], list[float]]
"""(steps, the value at each step)."""


def names() -> list[str]:
    """The names of all tables."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def load(name: str) -> Table:
    """The table of this name. Raises ConfigError, which lists the names, if there is none."""
    if name not in names():
        raise ConfigError(f"there is no table {name!r}: choose one of {', '.join(names())}")
    return read_table(TABLES / f"{name}.yaml")


def base_values(preset: str | None) -> dict[str, Any]:
    """The parameters that a table's rows start from: those of params.yaml, or of a preset."""
    path = Path("presets") / f"{preset}.yaml" if preset else Path("params.yaml")
    return read_yaml(path)


def run_table(
    name: str,
    seeds: Sequence[int],
    jobs: int,
    preset: str | None,
    rows: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> bool:
    """Runs the experiments of a table that are missing, of all `rows` or of these; returns whether all ended well.

    Raises ConfigError for a row that the table does not have, and if Git has uncommitted changes.
    """
    table, base = load(name), base_values(preset)
    wanted, lessons = list[tuple[str, Run]](), dict[str, tuple[Run, str, str]]()
    for run in runs(table.only(rows), base, list(dict.fromkeys(seeds))):
        if teacher := teacher_of(table, base, run):
            model = _identity(teacher.params, ["train"])
            run = taught_by(run, base, model)
            lessons[_identity(run.params)] = (teacher, _identity(teacher.params), model)
        wanted.append((_identity(run.params, table.stages), run))
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
    students = {identity: run for identity, run in missing.items() if identity in lessons}
    learning = [lessons[identity] for identity in students]
    others = {identity: run for identity, run in missing.items() if identity not in lessons}
    others |= {identity: teacher for teacher, identity, model in learning if not placed(teacher, identity, model)}
    try:
        failed = _prepare(queue, others | students)
        if not failed:
            failed = [problem for wave in _waves(others) for problem in queue.run(wave, book)]
            ready = {identity: run for identity, run in students.items() if placed(*lessons[identity])}
            failed += [problem for wave in _waves(ready) for problem in queue.run(wave, book)]
            untaught = [(run, lessons[identity][0]) for identity, run in students.items() if identity not in ready]
            failed += dict.fromkeys(
                f"{run.row}, seed {run.seed} has not run, for want of the model of {teacher.row}, its teacher: "
                "the same command tries again"
                for run, teacher in untaught
            )
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


def show_table(name: str, preset: str | None) -> str:
    """The table as Markdown, from tables/results/NAME.json."""
    table, base = load(name), base_values(preset)
    rows = ResultsFile(name, base, preset, table.stages).rows()
    found: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["row"], row["value"]), []).append(row["metrics"])
    commits = sorted({row["commit"][:8] for row in rows})
    scale = f"presets/{preset}.yaml" if preset else "params.yaml"
    return f"{markdown(table, found)}\n\nScale: {scale}. Commits: {', '.join(commits) or 'none, nothing has run'}."


def curves(name: str, preset: str | None, seed: int) -> dict[str, dict[str, Any]]:
    """{row: its stored result} of the rows that have run with `seed`, in the table's order.

    A result has the curves of the embeddings under `curves`, and the commit that has the model under `revision`. Raises
    DataError if no row has run.
    """
    table = _with_curves(name)
    rows = ResultsFile(name, base_values(preset), preset).rows()
    found = {row["row"]: row for row in rows if row["seed"] == seed and row["value"] == rows[0]["value"]}
    if not found:
        raise DataError(f"no row of {name} has run with seed {seed}: `vqlcmd table run {name}`")
    return {row: found[row] for row in table.rows if row in found}


def series(name: str, preset: str | None) -> dict[str, dict[str, list[Line]]]:
    """{column: {row: a line of (steps, values) for each seed}} of the rows of a table that have run.

    Columns are those of training and, if the table sweeps `weights`, its metrics at the steps of the snapshots. Raises
    DataError if no row has run.
    """
    table = _with_curves(name)
    results = ResultsFile(name, base_values(preset), preset).rows()
    found: dict[str, dict[str, list[Line]]] = {}
    for row in table.rows:
        seeds = sorted({each["seed"] for each in results if each["row"] == row})
        for seed in seeds:
            ours = [each for each in results if (each["row"], each["seed"]) == (row, seed)]
            curves = dict(ours[0]["curves"])
            steps = curves.pop("step")
            lines = {column: (steps, values) for column, values in curves.items()}
            if table.knob == "weights":
                at = sorted((_step(each["value"], steps[-1]), each["metrics"]) for each in ours if _on_the_way(each))
                for metric in table.metrics:
                    lines[metric] = ([step for step, _ in at], [float(metric_of(each, metric)) for _, each in at])
            for column, line in lines.items():
                found.setdefault(column, {}).setdefault(row, []).append(line)
    if not found:
        raise DataError(f"no row of {name} has run: `vqlcmd table run {name}`")
    return found


def _with_curves(name: str) -> Table:
    """A table by name. Raises DataError if its rows do not train a model."""
    table = load(name)
    if table.stages:
        raise DataError(
            f"{name} runs {', '.join(table.stages)} alone and has no curves: choose a table of the pipeline"
        )
    return table


def _on_the_way(result: dict[str, Any]) -> bool:
    """Whether a result's weights belong to a step: the model's or a snapshot's, not an average of another decay."""
    return result["value"] == "model" or result["value"].startswith("snapshots/")


def _step(weights: str, last: float) -> float:
    return last if weights == "model" else float(weights.removeprefix("snapshots/"))


def fetch_model(revision: str, folder: Path) -> Path:
    """The model file of an experiment, copied from DVC's cache into `folder`.

    Raises DataError in a clone that did not run the experiment.
    """
    target = folder / f"{revision[:12]}.safetensors"
    if not target.exists() and not fetched(revision, target):
        raise DataError(f"the model of {revision[:8]} is not in this clone's cache: run the table here")
    return target


def _identity(params: RunParams, stages: Sequence[str] = ()) -> str:
    """A digest of everything that decides an experiment's result: parameters, code, and the manifest of the data.

    With `stages`, of what decides the results of those; it differs from that of any experiment of the whole pipeline.
    """
    values, root = params.model_dump(mode="json"), Path()
    if not stages:
        return fingerprint(pipeline.parameters(values, root), pipeline.digests(values, root=root))
    run = pipeline.with_needed(stages, root)
    return fingerprint(run, pipeline.parameters(values, root, run), pipeline.digests(values, run, root))


def _training(params: RunParams) -> str:
    """A digest of what decides a model, apart from its tokens."""
    return fingerprint(params.model_part().model_dump(mode="json"))


def _prepare(queue: Queue, missing: dict[str, Run]) -> list[str]:
    """Runs what experiments side by side have in common; returns a message if that failed."""
    shared = _shared(queue.table, list(missing.values())) if queue.jobs > 1 and len(missing) > 1 else []
    if not shared:
        return []
    first = next(iter(missing.values()))
    return queue.prepare(_identity(first.params, shared), shared, first)


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
        first.setdefault(_training(run.params), identity)
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
