"""header.json of a folder of token shards: its contents, trusted only after every name and number is checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vqlcmd.runtime.artefacts.json_file import read_json
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256

FORMAT = 2
MOST_CODES = 2**16
"""Most codes of a tokenizer: tokens are 16 bits on disk."""
MOST = 10**12
"""Most images of a split; a larger count means that the header is damaged."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    # Neither unknown keys nor numbers written as text are accepted.
    model_config = ConfigDict(strict=True, extra="forbid")


class Shard(_Part):
    """A shard: the name of a tar file in the folder, its number of images and its digest."""

    file: str
    images: Annotated[int, Field(ge=1, le=MOST)]
    sha256: Sha256


class Shards(_Part):
    """The shards of one split, in order."""

    images: Annotated[int, Field(ge=0, le=MOST)]
    shards: list[Shard]


class Header(BaseModel):
    """The keys that every header has; the stages add others about tokens or samples."""

    model_config = ConfigDict(strict=True, extra="allow")

    tokens: Annotated[int, Field(ge=1, le=2**20)]
    grid: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)] | None = None
    """Rows and columns of the token grid, which need not be square."""
    codes: Annotated[int, Field(ge=1, le=MOST_CODES)]
    classes: list[str]
    splits: dict[Annotated[str, Field(pattern=r"^[a-z]{1,32}$")], Shards]
    files: dict[Annotated[str, Field(pattern=r"^[a-z]{1,32}\.(npy|safetensors)$")], Sha256]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.grid is not None and self.grid[0] * self.grid[1] != self.tokens:
            raise ValueError(f"a grid of {self.grid[0]} x {self.grid[1]} has not {self.tokens} tokens")
        for name, split in self.splits.items():
            # Only the generated names are accepted, so no header can lead a reader out of its folder.
            if [shard.file for shard in split.shards] != [shard_name(name, i) for i in range(len(split.shards))]:
                raise ValueError(f"the shards of {name} are not called {shard_name(name, 0)} and so on")
            if split.images != sum(shard.images for shard in split.shards):
                raise ValueError(f"the shards of {name} hold another number of images than the split")
        return self


def shard_name(split: str, number: int) -> str:
    """SPLIT-000000.tar, ..."""
    return f"{split}-{number:06}.tar"


def check_codes(codes: int, whose: object) -> None:
    """ConfigError where a tokenizer has more codes than 16-bit tokens can represent."""
    if codes > MOST_CODES:
        raise ConfigError(f"{whose} has {codes} codes, but tokens are 16 bits: choose one of at most {MOST_CODES}")


def read_header(directory: Path) -> dict[str, Any]:
    """The header of a shard directory; DataError where it is missing, of another format, or not a valid header."""
    path, remedy = directory / "header.json", f"delete {directory} and make it again with `dvc repro`"
    header = read_json(path, remedy if path.exists() else "`dvc repro` makes it")
    found = header.get("format") if isinstance(header, dict) else None
    if found != FORMAT or isinstance(found, bool):
        said = found if isinstance(found, int) and abs(found) < MOST else "of another kind"
        raise DataError(f"{path} has format {said}, but this version reads {FORMAT}: {remedy}")
    try:
        Header.model_validate(header)
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))[:80]!r} {first['msg'].removeprefix('Value error, ')}"
        raise DataError(f"{path} is no header of token shards ({problem}): {remedy}") from None
    return header


def grid_of(header: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """Rows and columns of the tokens, from the header of shards or of a model. DataError where it does not say."""
    match header.get("grid"):
        case [int(rows), int(columns)] if rows > 0 and columns > 0 and rows * columns == header["tokens"]:
            return rows, columns
    raise DataError(f"{path} does not say on which grid its tokens lie, it is of another version: `dvc repro`")


def listed_split(directory: Path, header: dict[str, Any], name: str) -> dict[str, Any]:
    """The header's entry for one split: {images, shards}. DataError, which names the others, where there is none."""
    if name not in header["splits"]:
        raise DataError(f"{directory} has no split {name!r}, but {', '.join(header['splits']) or 'none'}")
    return header["splits"][name]


def checked_file(directory: Path, name: str, digest: str | None) -> Path:
    """The path of a file in the folder. DataError where it is missing or has another digest than `digest`."""
    path = directory / name
    if digest is None:
        raise DataError(f"{path} is missing: {directory} holds no tokens of images, or none with it")
    if not path.is_file():
        raise DataError(f"{path} is missing: `dvc checkout` or `dvc repro` brings it back")
    if sha256(path) != digest:
        raise DataError(f"{path} differs from the digest in header.json: delete {directory} and run `dvc repro`")
    return path
