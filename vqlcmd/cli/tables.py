"""`vqlcmd table`: the paper's tables, run, shown and drawn."""

from pathlib import Path
from typing import Annotated

import typer

from vqlcmd.cli.checkout import require_checkout
from vqlcmd.cli.summaries import WholeSummaries

tables = typer.Typer(cls=WholeSummaries, help="The tables of the paper, and ours: tables/*.yaml.", no_args_is_help=True)
Preset = Annotated[str | None, typer.Option(help="presets/NAME.yaml as the scale, instead of params.yaml.")]
Name = Annotated[str, typer.Argument(help="A table: `vqlcmd table list` names them.")]


@tables.command("list")
def table_list() -> None:
    """List the tables, with the number of rows of each."""
    require_checkout("table list")
    from vqlcmd.experiments.table import load, names

    for name in names():
        table = load(name)
        print(f"{name:22} {len(table.rows):2} rows  {table.title}")


@tables.command("run")
def table_run(
    name: Name,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 to SEEDS - 1.")] = 1,
    seed: Annotated[list[int] | None, typer.Option(min=0, help="This seed alone; can be repeated.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="This row alone; can be repeated.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Experiments at a time.")] = 1,
    preset: Preset = None,
) -> None:
    """Run the rows that have not run yet, one DVC experiment per row and seed. Goes on where it was interrupted."""
    require_checkout("table run")
    from vqlcmd.experiments.runner import run_table

    if not run_table(name, seed or list(range(seeds)), jobs, preset, row or []):
        raise typer.Exit(1)


@tables.command("show")
def table_show(name: Name, preset: Preset = None) -> None:
    """Print a table as Markdown: our numbers, their spread over seeds, and the paper's numbers."""
    require_checkout("table show")
    from vqlcmd.experiments.views import show_table

    print(show_table(name, preset))


@tables.command("commands")
def table_commands(name: Name, preset: Preset = None) -> None:
    """Print a command for each row, beside the paper's numbers, as Markdown: the lists of docs/tables.md."""
    require_checkout("table commands")
    from vqlcmd.experiments.commands import commands
    from vqlcmd.experiments.table import base_values, load

    print(commands(name, load(name), base_values(preset)))


@tables.command("curves")
def table_curves(
    names: Annotated[str, typer.Argument(help="Tables, with commas between.")],
    columns: Annotated[str, typer.Argument(help="Columns of train.tsv, or metrics, with commas between.")],
    out: Annotated[Path, typer.Argument(help="FILE.png")],
    preset: Preset = None,
) -> None:
    """Draw curves of the rows of tables, a panel for each column and a line for each seed.

    Columns are those of train.tsv, and metrics of samples along snapshots if a table sweeps `weights`.
    """
    require_checkout("table curves")
    from vqlcmd.cli.export import draw_curves

    draw_curves(names.split(","), columns.split(","), out, preset)


@tables.command("embeddings")
def table_embeddings(
    name: Name,
    out: Annotated[Path, typer.Argument(help="FILE.png")],
    preset: Preset = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw the embeddings of a table's rows: norm, distance, rank, decodability during training, and all distances."""
    require_checkout("table embeddings")
    from vqlcmd.cli.export import draw_collapse

    draw_collapse(name, out, preset, seed)
