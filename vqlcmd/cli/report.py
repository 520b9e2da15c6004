"""The last run's metrics as a table, its pictures, and a line for each that is older than what lies here now."""

from rich.console import Console
from rich.table import Table

from vqlcmd.reports import revision
from vqlcmd.reports.revision import PICTURES
from vqlcmd.reports.stale import stale
from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import DataError


def print_report() -> None:
    """The table of metrics/, its pictures, and what of it was not made from the parameters and data that are here."""
    for name in ("evaluate.json", "bound.json"):
        if not (paths.METRICS / name).is_file():
            raise DataError(f"{paths.METRICS / name} is missing: `dvc repro` makes it")
    run = revision.read()
    table = Table(title="Generated images, and the VQGAN's reconstructions as the target")
    for column in ("metric", "generated", "reconstructed"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for row in run.numbers():
        table.add_row(*row)
    console = Console()
    console.print(table)
    for note in run.notes():
        console.print(note, highlight=False, markup=False)
    for name, text in PICTURES.items():
        if name in run.pictures:
            console.print(f"{paths.METRICS / name}  {text}", highlight=False)
    for line in stale():
        print(line)
