"""vqlcmd: single stages by hand, and what lies beside the pipeline. The commands mount the stages' own functions."""

import os
import shlex
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

from vqlcmd.cli import model, share, text
from vqlcmd.cli.checkout import hand_over, require_checkout, run_stage
from vqlcmd.cli.knobs import print_methods
from vqlcmd.cli.summaries import WholeSummaries
from vqlcmd.cli.tables import tables
from vqlcmd.runtime import launcher, paths
from vqlcmd.runtime.artefacts import write_errors
from vqlcmd.runtime.errors import ConfigError, UserError, message, shown

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
"""Of each domain: the module that prints its numbers."""
NOTICEABLE = 10_000
"""Images that take more than a moment to read."""


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


@app.command()
def scan(
    name: Annotated[str, typer.Argument(help="A name for the data set: letters, digits, - and _.")],
    source: Annotated[
        str,
        typer.Argument(
            help="A folder of images, sub-folders being classes; .tar or .zip archives of images, one or a folder of "
            "many; an LMDB; sklearn-digits; or torchvision:NAME (CIFAR10, say), which is downloaded."
        ),
    ],
    no_classes: Annotated[
        bool, typer.Option("--no-classes", help="Sub-folders and labels are no classes: the thousands of FFHQ.")
    ] = False,
    no_copies: Annotated[
        bool, typer.Option("--no-copies", help="Do not look for copies of one picture, which reads all images once.")
    ] = False,
    as_text: Annotated[
        bool, typer.Option("--text", help="A folder of text files: .txt, .text, .md and .rst, in UTF-8.")
    ] = False,
) -> None:
    """Write data/manifests/NAME.json, which `dataset: NAME` in params.yaml picks. The kind is found by itself."""
    if not Path("dvc.yaml").is_file():
        raise ConfigError(
            f"there is no dvc.yaml here, and {paths.MANIFESTS} lies beside it: run this in a checkout's root, or in a "
            "folder that `vqlcmd init DIR` has made"
        )
    hand_over()
    if as_text:
        text.scan(name, Path(source))
        return
    from vqlcmd.images import manifest
    from vqlcmd.images.sources import torchvision_sets
    from vqlcmd.runtime.progress import Progress

    if source.startswith(torchvision_sets.PREFIX):
        source = str(torchvision_sets.fetch(source, paths.images_root()))
    found, images = manifest.scanned(name, source, classes=not no_classes)
    if not no_copies:
        from vqlcmd.images.copies import find_copies

        with Progress("copies", len(images), quiet=len(images) < NOTICEABLE) as progress:
            found = found.model_copy(update={"copies": find_copies(images, progress.update)})
    path = paths.MANIFESTS / f"{name}.json"
    manifest.write(found, path)
    print(f"{path}: {found.image_count} images, {len(found.classes) or 'no'} classes ({found.kind})")
    if found.classes:
        named = [shown(each, 40) for each in found.classes]
        print(f"The classes, unless --no-classes says that they are none: {manifest.shortened(named, 5)}")
    if found.copies:
        named = [f"{shown(images.name(copy))} of {shown(images.name(first))}" for copy, first in found.copies.items()]
        print(f"Copies, which stay on one side of the split: {len(named)}: {manifest.shortened(named, 5)}")
    if images.left_out:
        listed = ", ".join(f"{count} {ending}" for ending, count in sorted(images.left_out.items()))
        print(f"Left out, since their formats are not read: {listed}")
    if found.folder is not None:
        # Not resolve(): a link's own name is the one in the manifest.
        parent = shlex.quote(os.path.dirname(os.path.abspath(source)))
        print(f"The stages look for them here:\n  export VQLCMD_IMAGES={parent}")
    # An experiment runs in a copy of what is committed; DVC takes what is only added out of the index again.
    print(f"Next:\n  git add {path} && git commit -m 'Data set {name}'\n  dvc exp run -S dataset={name}")


def _reports() -> ModuleType:
    """What reports on runs of the domain of params.yaml."""
    from vqlcmd.params import load_run

    return import_module(REPORTS[load_run().domain if Path("params.yaml").is_file() else "images"])


@app.command()
def report(
    html: Annotated[
        Path | None, typer.Option(help="Also one page, FILE.html, with pictures and curves inside.")
    ] = None,
) -> None:
    """Print the metrics of the last run, and where its pictures are."""
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
    """What differs between runs: parameters, numbers, curves, pictures."""
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
    """What a run would cost on this machine: parameters, FLOPs, memory, disk, time. Runs nothing."""
    require_checkout("plan")
    from vqlcmd.cli.plan import print_plan

    print_plan(preset, images, classes, gpu, count)


app.add_typer(tables, name="table")
app.command("methods")(print_methods)

model.mount(app)
text.mount(app)
share.mount(app)
for _stage_name, _text in STAGES.items():
    if _stage_name != "sample":
        _mount(_stage_name, _text)


def main() -> None:
    """The console command: one line for the user's errors, never a traceback."""
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
