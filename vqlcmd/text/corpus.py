"""Text files as a data set: a manifest in Git lists them, and they are read passage by passage.

A passage is a paragraph, the text between blank lines. It is the unit of the split into training and held-out text,
unless it has more than `tokenize.passage` tokens.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import ConfigError, DataError, shown
from vqlcmd.runtime.files import atomic_write, sha256

NAME = r"^[A-Za-z0-9_-]+$"
ENDINGS = (".txt", ".text", ".md", ".rst")
MOST_FILES = 2**30
"""A block's place in the text is one number of 62 bits: 30 for the file, 32 for the token in it."""
BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")
ACCENTS = re.compile("[\u0300-\u036f]+")
NO_LETTERS = re.compile("[^a-z]+")


class TextFile(BaseModel):
    """A file, by its path within the folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    bytes: Annotated[int, Field(ge=0)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @model_validator(mode="after")
    def _stays_inside(self) -> Self:
        if self.path.startswith("/") or {"", ".", ".."} & set(self.path.split("/")) or "\0" in self.path:
            raise ValueError(f"path {shown(repr(self.path))} leads out of the folder")
        return self


class Corpus(BaseModel):
    """The manifest of a scanned folder: the last component of its path, and its files in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=NAME)]
    kind: Literal["text"]
    folder: Annotated[str, Field(pattern=r"^[^/]+$")]
    files: Annotated[tuple[TextFile, ...], Field(min_length=1, max_length=MOST_FILES)]

    @model_validator(mode="after")
    def _a_folder(self) -> Self:
        if self.folder in (".", "..") or "\0" in self.folder:
            raise ValueError(f"folder {self.folder!r} is no name of one")
        return self


@dataclass(frozen=True)
class Reduction:
    """How text is simplified before it is tokenized (`apply`), and what is appended to each passage (`joint`)."""

    apply: Callable[[str], str]
    joint: str


def letters(text: str) -> str:
    """Text in a to z and spaces: lower-cased, accents removed, and one space for each run of other characters."""
    return NO_LETTERS.sub(" ", ACCENTS.sub("", unicodedata.normalize("NFKD", text)).lower())


REDUCTIONS = {"none": Reduction(lambda text: text, "\n\n"), "letters": Reduction(letters, " ")}
"""Valid values of `text.reduce` in params.yaml."""


def scan(name: str, folder: Path) -> tuple[Corpus, int]:
    """The manifest of a folder of text files, and the number of other files in it, which are not read.

    DataError for a name of other characters than letters, digits, _ and -, a missing folder, or one without text.
    """
    if not re.fullmatch(NAME, name):
        raise DataError(f"{name!r} cannot name a data set; use letters, digits, _ and - only")
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: put the text files into one, and name it")
    there = sorted(path for path in folder.rglob("*") if path.is_file())
    # Sorted by the paths' text: the order of Path objects differs between systems.
    texts = sorted((path for path in there if path.suffix.lower() in ENDINGS), key=lambda path: path.as_posix())
    if not texts:
        raise DataError(f"{folder} holds no text: files that end in {', '.join(ENDINGS)} count")
    files = [
        TextFile(path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, digest=sha256(path))
        for path in texts
    ]
    folder_name = folder.absolute().name
    return Corpus(name=name, kind="text", folder=folder_name, files=tuple(files)), len(there) - len(texts)


def write(corpus: Corpus, path: Path) -> None:
    """Write the manifest whole or not at all; equal manifests give equal bytes."""
    with atomic_write(path) as side:
        side.write_bytes(_to_bytes(corpus))


def read(path: Path) -> Corpus:
    """The manifest in a file. DataError where the file is missing or is not a manifest of text."""
    remedy = f"run `vqlcmd scan {path.stem} FOLDER --text`"
    try:
        return Corpus.model_validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        raise DataError(f"{path}: no manifest ({error.strerror}); {remedy}{paths.experiment_remedy(path)}") from None
    except ValidationError as error:
        first = error.errors()[0]
        problem = " ".join([".".join(map(str, first["loc"])), first["msg"]]).strip()
        raise DataError(f"{path}: not a manifest of text: {shown(problem)}; {remedy}") from None


def digest(corpus: Corpus) -> str:
    """64 hexadecimal digits that change with anything the manifest says."""
    return hashlib.sha256(_to_bytes(corpus)).hexdigest()


def texts(corpus: Corpus, root: Path | None) -> Iterator[str]:
    """The files' contents, in order. ConfigError without a root; DataError for a file that is not as listed or not
    UTF-8."""
    if root is None:
        raise ConfigError(f"VQLCMD_TEXT is not set: the folder that holds the folder {corpus.folder!r}")
    for file in corpus.files:
        path = root / corpus.folder / file.path
        if not path.is_file() or path.stat().st_size != file.bytes or sha256(path) != file.digest:
            state = "is missing" if not path.is_file() else "is not what the manifest says"
            raise DataError(
                f"{shown(path)} {state}: restore it, or run `vqlcmd scan {corpus.name} FOLDER --text` again"
            )
        try:
            yield path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{shown(path)} is not UTF-8 (byte {error.start}): `iconv -f LATIN1 -t UTF-8` converts Latin-1"
            ) from None


def passages(text: str, reduction: Reduction) -> Iterator[str]:
    """The paragraphs of a text, reduced, each followed by the joint; empty ones are left out."""
    for paragraph in BLANK_LINES.split(text):
        if reduced := reduction.apply(paragraph).strip():
            yield reduced + reduction.joint


def _to_bytes(corpus: Corpus) -> bytes:
    return (json.dumps(corpus.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()
