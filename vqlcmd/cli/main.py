"""The command `vqlcmd`: single stages, and what goes with the pipeline. It calls the stages' own functions."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from vqlcmd.cli import data, model, share, text
from vqlcmd.cli.checkout import require_checkout, run_stage
from vqlcmd.cli.knobs import print_methods
from vqlcmd.cli.summaries import WholeSummaries
from vqlcmd.cli.tables import tables
from vqlcmd.runtime import launcher
from vqlcmd.runtime.artefacts import write_errors
from vqlcmd.runtime.errors import ConfigError, UserError, message

STAGES = {
    "vqgan": "Fit the tokenizer, or take a given one: images -> data/vqgan.safetensors.",
    "tokenize": "Encode the images: vqgan -> data/tokens.",
    "method": "Check that the method that params.yaml names is one of `vqlcmd methods`: -> data/method.txt.",
    "train": "Train the method that params.yaml names: tokens -> data/model. Goes on where it was interrupted.",
    "sample": "Draw samples: model -> data/samples.",
    "bound": "Nats per token on held-out images: model, tokens -> metrics/bound.json.",
    "reference": "Features of the real images: images, vqgan -> data/reference.",
    "figures": "Draw the pictures: tokens, model, samples -> metrics/*.png.",
    "evaluate": "FID, IS, precision, recall: samples, reference -> metrics/evaluate.json.",
}

REPORTS = {"images": "vqlcmd.cli.report", "text": "vqlcmd.reports.text"}
"""{domain: the module that prints its numbers}."""

app = typer.Typer(
    cls=WholeSummaries,
    help="VQ-LCMD: generative models over VQ tokens, as a reproducible pipeline. `dvc repro` runs all stages.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        from vqlcmd import __version__

        print(f"vqlcmd {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """VQ-LCMD: generative models over VQ tokens, as a reproducible pipeline. `dvc repro` runs all stages."""


def _mount(stage: str, text: str) -> None:
    @app.command(stage, help=text + " Parameters come from params.yaml.")
    def command() -> None:
        raise typer.Exit(run_stage(stage))


def _reports() -> ModuleType:
    """The module that reports on runs of the domain in params.yaml."""
    from vqlcmd.params import load_run

    return import_module(REPORTS[load_run().domain if Path("params.yaml").is_file() else "images"])


@app.command()
def report(
    html: Annotated[
        Path | None, typer.Option(help="Also one page, FILE.html, with pictures and curves inside.")
    ] = None,
) -> None:
    """Print the metrics of the last run, where its pictures are, and what is older than params.yaml or the data."""
    require_checkout("report")
    _reports().print_report(html)


@app.command()
def compare(
    revisions: Annotated[
        list[str], typer.Argument(help="Two or more: commits, branches, tags, experiments, or `workspace`.")
    ],
    html: Annotated[
        Path | None, typer.Option(help="Also one page, FILE.html: curves over each other, grids beside each other.")
    ] = None,
) -> None:
    """Show what differs between runs: parameters and numbers, and with --html also curves and pictures."""
    require_checkout("compare")
    if len(revisions) < 2:
        raise ConfigError(
            f"{revisions[0]} alone compares with nothing: name two revisions; `workspace` is what is here"
        )
    from vqlcmd.cli.report import print_comparison

    print_comparison(revisions, html, _reports().stale)


@app.command()
def plan(
    preset: Annotated[str | None, typer.Option(help="presets/NAME.yaml instead of params.yaml.")] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="How many images, or blocks of text, where no scan has counted them.")
    ] = None,
    classes: Annotated[int | None, typer.Option(min=0, help="How many classes they have.")] = None,
    gpu: Annotated[str | None, typer.Option(help="A GPU by its published rates, such as h100: arithmetic.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many of them.")] = None,
) -> None:
    """Estimate what a run would cost on this machine: parameters, FLOPs, memory, disk, time. Runs no stage."""
    require_checkout("plan")
    from vqlcmd.cli.plan import print_plan

    print_plan(preset, images, classes, gpu, count)


app.add_typer(tables, name="table")
app.command("methods")(print_methods)

data.mount(app)
model.mount(app)
text.mount(app)
share.mount(app)
for _stage_name, _text in STAGES.items():
    if _stage_name != "sample":
        _mount(_stage_name, _text)


def main() -> None:
    """The console command: the user's errors are one line, without a traceback."""
    try:
        app()
    except UserError as error:
        print(f"vqlcmd: {message(error)}", file=sys.stderr)
        sys.exit(1)
    except (OSError, MemoryError, RuntimeError) as error:
        line = launcher.of_memory(error, "ask for fewer images, or for fewer at once")
        if line is None and isinstance(error, OSError):
            line = write_errors.one_line(error)
        if line is None:
            raise
        print(f"vqlcmd: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(launcher.INTERRUPTED)


if __name__ == "__main__":
    main()
