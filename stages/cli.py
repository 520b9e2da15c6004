"""vqlcmd: single stages by hand, and what lies beside the pipeline. The commands mount the stages' own functions."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from stages import paths, runner
from vqlcmd.errors import ConfigError, UserError

STAGES = {
    "vqgan": "Fit the tokenizer, or take a given one: images -> data/vqgan.safetensors.",
    "tokenize": "Encode the images: vqgan -> data/tokens.",
    "train": "Train the method that params.yaml names: tokens -> data/model. Goes on where it was interrupted.",
    "sample": "Draw samples: model -> data/samples.",
    "bound": "Nats per token on held-out images: model, tokens -> metrics/bound.json.",
    "reference": "Features of the real images: images, vqgan -> data/reference.",
    "evaluate": "FID, IS, precision, recall: samples, reference -> metrics/evaluate.json.",
}

app = typer.Typer(
    help="VQ-LCMD: generative models over VQ tokens, as a reproducible pipeline. `dvc repro` runs all stages.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _mount(stage: str, text: str) -> None:
    @app.command(stage, help=text + " Parameters come from params.yaml.")
    def command() -> None:
        raise typer.Exit(runner.main(stage))


@app.command()
def scan(
    name: Annotated[str, typer.Argument(help="A name for the data set: letters, digits, - and _.")],
    source: Annotated[str, typer.Argument(help="A folder of images, sub-folders being classes; or sklearn-digits.")],
) -> None:
    """Write data/manifests/NAME.json, which `dataset: NAME` in params.yaml picks."""
    from vqlcmd import manifest

    found = manifest.scan(name, source)
    path = paths.MANIFESTS / f"{name}.json"
    manifest.write(found, path)
    print(f"{path}: {found.image_count} images, {len(found.classes) or 'no'} classes")
    if found.folder is not None:
        # Not resolve(): a link's own name is the one in the manifest.
        parent = shlex.quote(os.path.dirname(os.path.abspath(source)))
        print(f"The stages look for them here:\n  export VQLCMD_IMAGES={parent}")
    print(f"Next:\n  git add {path}\n  dvc exp run -S dataset={name}")


@app.command()
def decode(
    out: Annotated[
        Path, typer.Option(help="A folder for PNG files, or FILE.npz (arr_0, NHWC uint8) for the ADM evaluator.")
    ],
    count: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 256,
) -> None:
    """Turn data/samples into images."""
    from stages.export import decode_samples

    decode_samples(out, count, batch_size)


@app.command()
def sample(
    class_: Annotated[int | None, typer.Option("--class", min=0, help="Images of this class, numbered from 0.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many images.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for PNG files, or FILE.npz.")] = None,
    steps: Annotated[int, typer.Option(min=1)] = 50,
    guidance: Annotated[float, typer.Option(min=0)] = 0.0,
    sampler: Annotated[Literal["ancestral", "ddim"], typer.Option()] = "ancestral",
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Without options the pipeline's stage: model -> data/samples. With --out: images of your choice, into DIR."""
    if out is None:
        if class_ is not None or count is not None:
            raise ConfigError("--class and --count need --out DIR; without options this is the pipeline's stage")
        raise typer.Exit(runner.main("sample"))
    from stages.export import sample_images

    sample_images(out, class_, count or 16, steps=steps, guidance=guidance, sampler=sampler, seed=seed)


@app.command()
def report() -> None:
    """Print the metrics of the last run, and where its pictures are."""
    from stages.export import print_report

    print_report()


for _stage, _text in STAGES.items():
    if _stage != "sample":
        _mount(_stage, _text)


def main() -> None:
    """The console command: one line for the user's errors, never a traceback."""
    try:
        app()
    except UserError as error:
        print(f"vqlcmd: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(runner.INTERRUPTED)


if __name__ == "__main__":
    main()
