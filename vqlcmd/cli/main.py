"""vqlcmd: single stages by hand, and what lies beside the pipeline. The commands mount the stages' own functions."""

import importlib
import importlib.util
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vqlcmd.cli import knobs
from vqlcmd.cli.knobs import KnobCommand
from vqlcmd.runtime import launcher, paths
from vqlcmd.runtime.artefacts import write_errors
from vqlcmd.runtime.errors import ConfigError, UserError, shown

STAGES = {
    "vqgan": "Fit the tokenizer, or take a given one: images -> data/vqgan.safetensors.",
    "tokenize": "Encode the images: vqgan -> data/tokens.",
    "train": "Train the method that params.yaml names: tokens -> data/model. Goes on where it was interrupted.",
    "sample": "Draw samples: model -> data/samples.",
    "bound": "Nats per token on held-out images: model, tokens -> metrics/bound.json.",
    "reference": "Features of the real images: images, vqgan -> data/reference.",
    "figures": "Draw the pictures: tokens, model, samples -> metrics/*.png.",
    "evaluate": "FID, IS, precision, recall: samples, reference -> metrics/evaluate.json.",
}

NOTICEABLE = 10_000
"""Images that take more than a moment to read."""


class _WholeSummaries(TyperGroup):
    """A group whose list of commands has the first sentence of each, whole: click cuts it after 45 characters."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """As click does."""
        for command in self.commands.values():
            command.short_help = (
                command.short_help or " ".join((command.help or "").split()).partition(". ")[0].rstrip(".") + "."
            )
        super().format_commands(ctx, formatter)


app = typer.Typer(
    cls=_WholeSummaries,
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


def _stage(name: str) -> int:
    """Run a stage of the checkout that the command is given in; its exit code."""
    sys.path.insert(0, str(Path.cwd()))
    if importlib.util.find_spec("stages") is None:
        raise ConfigError(f"`vqlcmd {name}` is a stage of the pipeline: run it in the root of a checkout of it")
    return importlib.import_module(f"stages.{name}").main()


def _mount(stage: str, text: str) -> None:
    @app.command(stage, help=text + " Parameters come from params.yaml.")
    def command() -> None:
        raise typer.Exit(_stage(stage))


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
) -> None:
    """Write data/manifests/NAME.json, which `dataset: NAME` in params.yaml picks. The kind is found by itself."""
    if not Path("dvc.yaml").is_file():
        raise ConfigError(
            f"there is no dvc.yaml here, and {paths.MANIFESTS} lies beside it: run this in a checkout's root"
        )
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
        print(f"The classes, unless --no-classes says that they are none: {manifest.shortened([*found.classes], 5)}")
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


@app.command()
def decode(
    out: Annotated[
        Path, typer.Option(help="A folder for PNG files, or FILE.npz (arr_0, NHWC uint8) for the ADM evaluator.")
    ],
    count: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
) -> None:
    """Turn data/samples into images."""
    from vqlcmd.cli.export import decode_samples

    decode_samples(out, count, batch_size)


Steps = Annotated[int | None, typer.Option(min=1, help="Steps. As in training, like whatever is left out.")]
Guidance = Annotated[float | None, typer.Option(min=0, help="Its scale w; needs classes.")]
Sampler = Annotated[str | None, typer.Option(help="ancestral, or ddim where the method has it.")]
SampleSeed = Annotated[int | None, typer.Option("--seed", min=0, help="Of the random numbers.")]


@app.command(cls=KnobCommand)
def sample(
    context: typer.Context,
    class_: Annotated[int | None, typer.Option("--class", min=0, help="Images of this class, numbered from 0.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many images.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for PNG files, or FILE.npz.")] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    seed: SampleSeed = None,
) -> None:
    """Without options the pipeline's stage: model -> data/samples. With --out: images of your choice, into DIR."""
    if out is None:
        given = [
            name for name in context.params if getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"
        ]
        given += knobs.given(context)
        if given:
            named = ", ".join(sorted(f"--{name.strip('_')}" for name in given))
            raise ConfigError(f"{named}: needs --out DIR; without options this is the pipeline's stage")
        raise typer.Exit(_stage("sample"))
    from vqlcmd.cli.export import sample_images

    how = {"steps": steps, "guidance": guidance, "sampler": sampler, "seed": seed}
    sample_images(out, class_, count or 16, **how, **knobs.given(context))


@app.command(cls=KnobCommand)
def inpaint(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="A picture; it is cropped and resized as the training images were.")],
    mask: Annotated[
        Path,
        typer.Argument(help="A picture of the same size: white where to paint anew, black or transparent to keep."),
    ],
    out: Annotated[Path, typer.Option(help="PNG: the picture, what is kept of it, and the results.")] = Path("out.png"),
    class_: Annotated[int | None, typer.Option("--class", min=0, help="What to paint, numbered from 0.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many results.")] = 8,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    seed: SampleSeed = None,
    whole_tokens: Annotated[
        bool, typer.Option("--whole-tokens", help="Take all pixels of a token that is drawn anew, not the white alone.")
    ] = False,
) -> None:
    """Paint the white part of MASK into IMAGE anew, with the model and the tokenizer in data/."""
    from vqlcmd.cli.export import inpaint_image

    how: dict[str, Any] = {
        "steps": steps,
        "guidance": guidance,
        "sampler": sampler,
        "seed": seed,
        "whole_tokens": whole_tokens,
    }
    inpaint_image(image, mask, out, class_, count, **how, **knobs.given(context))


@app.command(cls=KnobCommand)
def gallery(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="FILE.png")],
    guidance: Annotated[str | None, typer.Option(help="Scales: 0,1,2,4. Each has --rows rows.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows for each scale, other seeds each.")] = 8,
    steps: Steps = None,
    sampler: Sampler = None,
    seed: SampleSeed = None,
) -> None:
    """One picture of samples of the model in data/, classes in columns: the paper's Figures 3, 4 and 7 to 10."""
    from vqlcmd.cli.export import draw_gallery

    draw_gallery(out, guidance, rows, steps=steps, sampler=sampler, seed=seed, **knobs.given(context))


@app.command()
def report() -> None:
    """Print the metrics of the last run, and where its pictures are."""
    from vqlcmd.cli.report import print_report

    print_report()


@app.command()
def plan(
    preset: Annotated[str | None, typer.Option(help="presets/NAME.yaml instead of params.yaml.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="How many images, where no scan has counted them.")] = None,
    classes: Annotated[int | None, typer.Option(min=0, help="How many classes they have.")] = None,
    gpu: Annotated[str | None, typer.Option(help="A GPU by its published rates, such as h100: arithmetic.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many of them.")] = None,
) -> None:
    """What a run would cost on this machine: parameters, FLOPs, memory, disk, time. Runs nothing."""
    from vqlcmd.cli.plan import print_plan

    print_plan(preset, images, classes, gpu, count)


tables = typer.Typer(
    cls=_WholeSummaries, help="The tables of the paper, and ours: tables/*.yaml.", no_args_is_help=True
)
app.add_typer(tables, name="table")
Preset = Annotated[str | None, typer.Option(help="presets/NAME.yaml as the scale, instead of params.yaml.")]
Name = Annotated[str, typer.Argument(help="A table: `vqlcmd table list` names them.")]


@tables.command("list")
def table_list() -> None:
    """The tables, with how many rows each has."""
    from vqlcmd.experiments.runner import load, names

    for name in names():
        table = load(name)
        print(f"{name:22} {len(table.rows):2} rows  {table.title}")


@tables.command("run")
def table_run(
    name: Name,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 to SEEDS - 1.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Experiments at a time.")] = 1,
    preset: Preset = None,
) -> None:
    """Run the rows that have not run yet, one DVC experiment per row and seed. Goes on where it was interrupted."""
    from vqlcmd.experiments.runner import run_table

    if not run_table(name, list(range(seeds)), jobs, preset):
        raise typer.Exit(1)


@tables.command("show")
def table_show(name: Name, preset: Preset = None) -> None:
    """Our numbers, their spread over seeds, and the paper's, as Markdown."""
    from vqlcmd.experiments.runner import show_table

    print(show_table(name, preset))


@tables.command("commands")
def table_commands(name: Name, preset: Preset = None) -> None:
    """A command for each row, beside the paper's numbers, as Markdown: the lists of docs/tables.md."""
    from vqlcmd.experiments.commands import commands
    from vqlcmd.experiments.runner import base_values, load

    print(commands(name, load(name), base_values(preset)))


@tables.command("embeddings")
def table_embeddings(
    name: Name,
    out: Annotated[Path, typer.Argument(help="FILE.png")],
    preset: Preset = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw the embeddings of a table's rows: norm, distance, rank and decodability over training, and all distances."""
    from vqlcmd.cli.export import draw_collapse

    draw_collapse(name, out, preset, seed)


for _stage_name, _text in STAGES.items():
    if _stage_name != "sample":
        _mount(_stage_name, _text)


def main() -> None:
    """The console command: one line for the user's errors, never a traceback."""
    try:
        app()
    except UserError as error:
        print(f"vqlcmd: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        line = write_errors.one_line(error)
        if line is None:
            raise
        print(f"vqlcmd: {line}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(launcher.INTERRUPTED)


if __name__ == "__main__":
    main()
