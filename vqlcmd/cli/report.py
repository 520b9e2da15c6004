"""Prints the last run's metrics, its pictures, and a line for each thing that is older than the present data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vqlcmd.reports import page, revision
from vqlcmd.reports.comparison import compare
from vqlcmd.reports.revision import PICTURES
from vqlcmd.reports.stale import stale
from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import ConfigError, DataError


def print_report(html: Path | None = None) -> None:
    """Prints the metrics, the pictures, and what was not made from the present parameters and data.

    If only `vqgan` has run, the metrics are the tokenizer's. `html`: also writes all of that as a page. Raises
    DataError if evaluate.json or bound.json is missing, unless both are and `vqgan` has trained a tokenizer.
    """
    page.check_ending(html)
    missing = [name for name in ("evaluate.json", "bound.json") if not (paths.METRICS / name).is_file()]
    if len(missing) == 1 or (missing and not (paths.METRICS / "vqgan.json").is_file()):
        raise DataError(f"{paths.METRICS / missing[0]} is missing: `dvc repro` makes it")
    run = revision.read()
    rows = run.numbers()
    if not rows:
        raise DataError("no samples were measured, and a given tokenizer has no metrics of its own: `dvc repro`")
    both = "Generated images, and the VQGAN's reconstructions as the target"
    table = Table(title="The tokenizer's reconstructions" if missing else both)
    for column in ("metric", "generated", "reconstructed"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.print(table)
    for note in run.notes():
        console.print(note, highlight=False, markup=False)
    for name, text in PICTURES.items():
        if name in run.pictures:
            console.print(f"{paths.METRICS / name}  {text}", highlight=False)
    lines = list(stale())
    for line in lines:
        print(line)
    if html:
        page.write_report(run, lines, html)
        print(f"{html}: the page")


def print_comparison(names: Sequence[str], html: Path | None, older: Callable[[], Iterable[str]] = stale) -> None:
    """Prints what differs between revisions; `html`: also writes a page with curves and pictures.

    `older` yields a line for each thing in the working tree that was not made from the present parameters and data.
    """
    page.check_ending(html)
    if len(set(names)) < len(names):
        raise ConfigError(f"{', '.join(names)}: a name stands there twice; name different revisions")
    made = compare([revision.read(name) for name in names])
    if revision.WORKSPACE in names:
        made = replace(made, remarks=[*(f"{revision.WORKSPACE}: {line}" for line in older()), *made.remarks])
    console = Console()
    if made.varied:
        console.print(_beside("Parameters that differ", "parameter", names, made.varied))
    else:
        console.print("params.yaml is the same in all of them")
    console.print(_beside("Numbers", "metric", made.labels, made.numbers))
    for remark in made.remarks:
        console.print(remark, highlight=False, markup=False)
    if html:
        page.write_comparison(made, html)
        print(f"{html}: the page")
    else:
        print("--html FILE has the curves over each other and the grids beside each other")


def _beside(title: str, what: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(what)
    for column in columns:
        table.add_column(column, justify="right")
    for name, values in rows.items():
        table.add_row(name, *values)
    return table
