"""Commands for text: infill, and what sample and decode do where --out ends in .txt."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from vqlcmd.cli import knobs
from vqlcmd.cli.knobs import KnobCommand
from vqlcmd.cli.model import DATA, Sampler, SampleSeed, Steps
from vqlcmd.runtime import paths

Model = Annotated[
    Path, typer.Option("--model", help="A folder with model/ and vocabulary.json, as `dvc repro` makes them.")
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
    for filled in vqlcmd.load_text(str(model)).infill(text, blank=blank, count=count, **how):
        print(filled)


def scan(name: str, folder: Path) -> None:
    """Write the manifest of a folder of text files, and say what it holds."""
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


def decode_text(model: Path, samples_folder: Path, out: Path, count: int | None) -> None:
    """Write the samples of the pipeline as text, a line each; what ends a line in them stands as its escape."""
    from vqlcmd.runtime.artefacts import belongs
    from vqlcmd.text import vocabulary
    from vqlcmd.tokens import shards

    header, file = shards.read_header(samples_folder), model / paths.VOCABULARY.name
    symbols = vocabulary.load(file)
    belongs.check_belong(belongs.tokenizer(file), belongs.samples(samples_folder, header))
    samples = shards.read_split(samples_folder, "samples").tokens[:count]
    write_lines([symbols.decode(row) for row in samples.numpy()], out)


def sample_text(model: Path, out: Path, count: int, **how: Any) -> None:
    """Draw `count` blocks into a file, a line each; `how` as in TextGenerator.sample."""
    import vqlcmd

    write_lines(vqlcmd.load_text(str(model)).sample(count, **how), out)


def write_lines(texts: list[str], out: Path) -> None:
    """A line for each text, with backslashes and ends of lines as escapes."""
    from vqlcmd.runtime.files import atomic_write

    lines = ["".join(_escaped(each) for each in text) for text in texts]
    with atomic_write(out) as side:
        side.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(texts)} text{'' if len(texts) == 1 else 's'} in {out}")


def _escaped(character: str) -> str:
    ends = character == "\\" or len(f"a{character}b".splitlines()) > 1
    return character.encode("unicode_escape").decode() if ends else character


def mount(app: typer.Typer) -> None:
    """Make it a command of `app`."""
    app.command(cls=KnobCommand)(infill)
