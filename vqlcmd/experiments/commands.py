"""A table as commands, `vqlcmd table commands NAME`: the part of docs/tables.md that is generated."""

import shlex
from typing import Any

from vqlcmd.experiments.table import Number, Table, runs


def commands(name: str, table: Table, base: dict[str, Any]) -> str:
    """A table in Markdown: its own command, then for each row the paper's numbers and the row's command over `base`.

    In a sweep, a row's command has the first value. That of a row with a teacher runs the teacher's row before it.
    """
    first: dict[str, dict[str, Any]] = {}
    for run in runs(table, base, [0]):
        first.setdefault(run.row, {key: value for key, value in run.overrides.items() if key != "seed"})
    papers = any(row.paper for row in table.rows.values())
    columns = [f"{table.metrics[0]} at {value}" for value in table.values] if table.sweep else table.metrics
    heads = ["row", *(f"paper {column}" for column in columns if papers), "command"]
    lines = ["```bash", f"vqlcmd table run {name}", "```", ""]
    if table.sweep:
        values = ", ".join(map(str, table.values))
        taught = "; those of rows with a teacher run all" if any(row.teacher for row in table.rows.values()) else ""
        lines += [f"The values of `{table.knob}` are {values}; each command has the first{taught}.", ""]
    lines += [_line(heads), "|" + "---|" * len(heads)]
    for row, entry in table.rows.items():
        numbers = [_number(value) for value in entry.paper] if entry.paper else [""] * len(columns)
        command = f"`vqlcmd table run {name} --row {shlex.quote(row)}`" if entry.teacher else None
        command = "cited" if entry.cited else command or _command(first[row], table.stages)
        lines.append(_line([row, *(numbers if papers else []), command]))
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _command(overrides: dict[str, Any], stages: list[str]) -> str:
    options = [f"-S {shlex.quote(f'{key}={value}')}" for key, value in overrides.items()]
    return f"`{' '.join(['dvc exp run --temp', *options, *stages])}`"


def _number(value: Number) -> str:
    """Two decimals for a fraction, and a dash where the paper has no number."""
    return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)
