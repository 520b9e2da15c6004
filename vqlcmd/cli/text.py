"""Commands for text: infill, and the part of scan for --text."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from vqlcmd.cli import knobs
from vqlcmd.cli.knobs import KnobCommand
from vqlcmd.cli.model import DATA, Sampler, SampleSeed, Steps
from vqlcmd.runtime import paths

Model = Annotated[
    str,
    typer.Option(
        "--model", help="A folder with model/ and vocabulary.json, as `dvc repro` makes them, or hf://USER/NAME."
    ),
]


def infill(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="A text with blanks: 'the quick ____ fox'. A blank is one token.")],
    count: Annotated[int, typer.Option(min=1, help="How many results.")] = 8,
    blank: Annotated[str, typer.Option(help="The character that stands for what is to be drawn.")] = "_",
    steps: Steps = None,
    sampler: Sampler = None,
    seed: SampleSeed = None,
    model: Model = DATA,
) -> None:
    """Fill in the blanks of a text, with a model of text and its vocabulary."""
    import vqlcmd

    how: dict[str, Any] = {"steps": steps, "sampler": sampler, "seed": seed, **knobs.given(context)}
    for filled in vqlcmd.load_text(model).infill(text, blank=blank, count=count, **how):
        print(filled)


def scan(name: str, folder: Path) -> None:
    """Writes the manifest of a folder of text files, and prints what it has."""
    from vqlcmd.text import corpus

    found, others = corpus.scan(name, folder)
    path = paths.MANIFESTS / f"{name}.json"
    corpus.write(found, path)
    size = sum(file.bytes for file in found.files)
    print(f"{path}: {len(found.files)} text file{'' if len(found.files) == 1 else 's'}, {size:,} bytes")
    if others:
        print(f"Left out, since they do not end in {', '.join(corpus.ENDINGS)}: {others} files")
    print(f"The stages look for them here:\n  export VQLCMD_TEXT={shlex.quote(str(folder.absolute().parent))}")
    print(f"Next:\n  git add {path} && git commit -m 'Data set {name}'\n  dvc exp run -S dataset={name}")


def mount(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command(cls=KnobCommand)(infill)
