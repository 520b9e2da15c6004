"""tables/NAME.yaml: the rows of a table as overrides of params.yaml, with the paper's numbers; and its Markdown."""

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from vqlcmd.params import RunParams, check_run
from vqlcmd.params.types import Extractor
from vqlcmd.runtime.errors import ConfigError, shown
from vqlcmd.runtime.yaml_file import read_yaml

Number = int | float | str | None
TABLES = Path("tables")
TEACHERS = Path("data/teachers")
"""Where students find the models of their teachers, a folder each."""


class Row(BaseModel):
    """One row: its overrides and the paper's numbers, one per metric or per swept value; or only cited numbers.

    With `teacher`, its model is distilled from that of another row at the same seed, at the first swept value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    set: dict[str, Any] = {}
    teacher: str | None = None
    paper: list[Number] | None = None
    cited: bool = False


class Table(BaseModel):
    """A table: which metrics are measured for which rows, and over which values if a parameter is swept.

    `preset` is the paper's scale. `stages` are those whose numbers, metrics/STAGE.json, the table is about: only these
    and the stages that they need are run. If it is empty, the whole pipeline is run, and the numbers are those of bound
    and evaluate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    note: str = ""
    preset: str | None = None
    stages: list[str] = []
    metrics: list[str]
    sweep: dict[str, list[Any]] = {}
    rows: dict[str, Row]

    @model_validator(mode="after")
    def _consistent(self) -> "Table":
        if len(self.sweep) > 1:
            raise ValueError("sweep has more than one knob")
        width = len(self.values) if self.sweep else len(self.metrics)
        for name, row in self.rows.items():
            if row.teacher and (self.stages or "distill.teacher" in row.set):
                raise ValueError(f"row {name!r} has a teacher: the table runs all stages, and sets no distill.teacher")
            if row.paper is not None and len(row.paper) != width:
                raise ValueError(f"row {name!r} has {len(row.paper)} numbers of the paper for {width} columns")
            if row.cited and (row.set or row.teacher or row.paper is None):
                raise ValueError(f"row {name!r} is cited: it has numbers of the paper and sets nothing")
            teacher = self.rows.get(row.teacher or name)
            if teacher is None or (row.teacher and (teacher.cited or teacher.teacher)):
                raise ValueError(f"row {name!r} has the teacher {row.teacher!r}, which is no row that learns by itself")
        return self

    @property
    def knob(self) -> str | None:
        """The swept parameter; None if nothing is swept."""
        return next(iter(self.sweep), None)

    @property
    def values(self) -> list[Any]:
        """The values of the swept parameter; [None] if nothing is swept."""
        return next(iter(self.sweep.values()), [None])

    def only(self, rows: Sequence[str]) -> "Table":
        """The table of these rows, in its own order; of all if none is named. Raises ConfigError for an unknown one."""
        measured = [name for name, row in self.rows.items() if not row.cited]
        for name in rows:
            if name not in measured:
                raise ConfigError(f"{self.title!r} has no row {name!r} that runs: choose of {'; '.join(measured)}")
        kept = {name: row for name, row in self.rows.items() if name in rows or not rows}
        return self.model_copy(update={"rows": kept})


@dataclass(frozen=True)
class Run:
    """One experiment: a row at a seed, and at a value of the swept parameter."""

    row: str
    value: Any
    seed: int
    overrides: dict[str, Any]
    params: RunParams


def read_table(path: Path) -> Table:
    """The table in a file. Raises ConfigError, in one line, if the file is not a table."""
    try:
        return Table.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = shown(".".join(str(part) for part in first["loc"]) or "table")
        raise ConfigError(f"{path}: {where}: {shown(first['msg'].removeprefix('Value error, '), 200)}") from None


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


def runs(table: Table, base: dict[str, Any], seeds: Sequence[int]) -> list[Run]:
    """Every experiment of the table on top of the parameters `base`, seed by seed.

    A value `=KEY` stands for the value of KEY in `base`. Raises ConfigError for impossible parameters.
    """
    found = []
    for seed in seeds:
        for name, row in table.rows.items():
            if row.cited:
                continue
            for value in table.values:
                overrides = {**row.set, **({table.knob: value} if table.knob else {})}
                if row.teacher:
                    # Tells rows apart; what runs has its teacher's digest instead.
                    overrides["distill.teacher"] = (TEACHERS / slug(row.teacher)).as_posix()
                overrides = {key: _resolved(new, base) for key, new in overrides.items()} | {"seed": seed}
                params = check_run(overridden(base, overrides), f"row {name!r}")
                found.append(Run(name, value, seed, overrides, params))
    return found


def slug(row: str) -> str:
    """The name of a row in lower case, with hyphens in place of everything but letters and digits."""
    return re.sub("[^a-z0-9]+", "-", row.lower()).strip("-")


def experiment_name(run: Run, identity: str) -> str:
    """What DVC calls the experiment of a run."""
    return f"{slug(run.row)}-s{run.seed}-{identity}"


def overridden(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`base` with dotted keys replaced. Raises ConfigError for a key that `base` does not have."""
    values = dict(base)
    for key, new in overrides.items():
        section, _, rest = key.partition(".")
        if section not in values:
            raise ConfigError(f"{key} is not a parameter: params.yaml has no {section}")
        values[section] = overridden(values[section], {rest: new}) if rest else new
    return values


def differences(base: dict[str, Any], target: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys of `target` that differ from `base`, with their values."""
    found: dict[str, Any] = {}
    for key, value in target.items():
        if isinstance(value, dict) and isinstance(base.get(key, {}), dict):
            found |= differences(base.get(key, {}), value, f"{prefix}{key}.")
        elif key not in base or base[key] != value:
            found[prefix + key] = value
    return found


def markdown(table: Table, found: dict[tuple[str, Any], list[dict[str, Any]]]) -> str:
    """The table as Markdown. `found` maps (row, swept value) to the metrics of each seed; a missing value is `-`."""
    lines = [f"**{table.title}**", ""] + ([table.note, ""] if table.note else [])
    body = _swept(table, found) if table.sweep else _measured(table, found)
    widths = [max(len(row[column]) for row in body) for column in range(len(body[0]))]
    for number, row in enumerate(body):
        lines.append("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            lines.append("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _measured(table: Table, found: dict[tuple[str, Any], list[dict[str, Any]]]) -> list[list[str]]:
    papers = any(row.paper for row in table.rows.values())
    header = ["row"]
    for metric in table.metrics:
        header += [metric, *([f"paper {metric}"] if papers else [])]
    extra = [] if table.stages or "nfe" in table.metrics else ["nfe"]
    body = [[*header, *extra, "seeds"]]
    for name, row in table.rows.items():
        seeds = found.get((name, None), [])
        cells = [name]
        for index, metric in enumerate(table.metrics):
            cells += ["cited" if row.cited else mean_and_spread(seeds, metric)]
            cells += [_text(row.paper[index] if row.paper else None)] if papers else []
        body.append([*cells, *(mean_and_spread(seeds, metric) for metric in extra), str(len(seeds) or "")])
    return body


def _swept(table: Table, found: dict[tuple[str, Any], list[dict[str, Any]]]) -> list[list[str]]:
    body = [["row", f"metric at {table.knob} =", *(str(value) for value in table.values)]]
    for name, row in table.rows.items():
        if row.paper:
            body.append([name, f"paper {table.metrics[0]}, cited" if row.cited else f"paper {table.metrics[0]}"])
            body[-1] += [_text(number) for number in row.paper]
        for metric in [] if row.cited else [*table.metrics, *([] if table.stages else ["nfe"])]:
            body.append(
                [name, metric, *(mean_and_spread(found.get((name, value), []), metric) for value in table.values)]
            )
    return body


def mean_and_spread(seeds: Sequence[dict[str, Any]], metric: str) -> str:
    """The mean of a metric over seeds and, from two seeds on, its standard deviation; `-` if no seed has it.

    The metric is looked up by `metric_of`.
    """
    values = [value for metrics in seeds if (value := metric_of(metrics, metric)) is not None]
    if not values:
        return "-"
    if len(values) == 1 or len(set(values)) == 1:
        return _text(values[0])
    return f"{_text(statistics.mean(values))} ± {_text(statistics.stdev(values))}"


def metric_of(metrics: dict[str, Any], name: str) -> Any:
    """The value of a metric such as `fid`, under this name or with an extractor, as fid_proxy; None without."""
    ends = [name, *(f"{name}_{extractor}" for extractor in get_args(Extractor))]
    return next((metrics[end] for end in ends if metrics.get(end) is not None), None)


def _resolved(value: Any, base: dict[str, Any]) -> Any:
    if not (isinstance(value, str) and value.startswith("=")):
        return value
    for part in value[1:].split("."):
        base = base[part]
    return base


def _text(value: Number) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
