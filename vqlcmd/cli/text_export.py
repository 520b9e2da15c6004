"""A model of text, or samples of the pipeline -> a text file with a line for each."""

from pathlib import Path
from typing import Any

import vqlcmd
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.files import atomic_write
from vqlcmd.text import vocabulary
from vqlcmd.tokens import shards


def decode_text(model: Path, samples_folder: Path, out: Path, count: int | None) -> None:
    """Write the samples of the pipeline as text, a line each; what ends a line in them stands as its escape."""
    header, file = shards.read_header(samples_folder), model / paths.VOCABULARY.name
    symbols = vocabulary.load(file)
    belongs.check_belong(belongs.tokenizer(file), belongs.samples(samples_folder, header))
    samples = shards.read_split(samples_folder, "samples").tokens[:count]
    write_lines([symbols.decode(row) for row in samples.numpy()], out)


def sample_text(model: Path, out: Path, count: int, **how: Any) -> None:
    """Draw `count` blocks into a file, a line each; `how` as in TextGenerator.sample."""
    write_lines(vqlcmd.load_text(str(model)).sample(count, **how), out)


def write_lines(texts: list[str], out: Path) -> None:
    """A line for each text, with backslashes and ends of lines as escapes."""
    lines = ["".join(_escaped(each) for each in text) for text in texts]
    with atomic_write(out) as side:
        side.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(texts)} text{'' if len(texts) == 1 else 's'} in {out}")


def _escaped(character: str) -> str:
    ends = character == "\\" or len(f"a{character}b".splitlines()) > 1
    return character.encode("unicode_escape").decode() if ends else character
