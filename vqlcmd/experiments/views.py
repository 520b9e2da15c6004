"""The stored results of a table: as Markdown, as curves, and the models behind them."""

from pathlib import Path
from typing import Any

from vqlcmd.experiments.results import ResultsFile, fetched
from vqlcmd.experiments.table import Table, base_values, load, markdown, metric_of
from vqlcmd.runtime.errors import DataError

Line = tuple[list[float], list[float]]
"""(steps, the value at each step)."""


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
