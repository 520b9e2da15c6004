"""Packed token shards: a tar record holds thousands of images' tokens, a header describes and vouches for them.

A directory holds SPLIT-000000.tar, ... and header.json. A record is `tokens.npy` uint16 (n, N), `cls.npy` int64
(n,) and `index.npy` int64 (n,), the images' positions in their source. The same tokens make the same bytes.
"""

import functools
import io
import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from torch import Tensor

from vqlcmd.errors import ConfigError, DataError
from vqlcmd.files import sha256, write_json
from vqlcmd.noise import Noise, address

FORMAT = 1


@dataclass(frozen=True)
class Split:
    """Tokens (n, N), classes (n,) and source positions (n,) of one split, in memory."""

    tokens: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, seed: int, step: int, size: int, part: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of training step `step`: tokens (b, N) int64, classes (b,), and rows (b,), its place in the batch.

        Batches walk through one seeded permutation of the split after another; `part` cuts out one process's rows.
        """
        rows = torch.arange(size)[part]
        positions = step * size + rows
        epochs, offsets = positions // len(self), positions % len(self)
        chosen = torch.empty_like(positions)
        for epoch in epochs.unique().tolist():
            chosen[epochs == epoch] = _order(len(self), seed, epoch)[offsets[epochs == epoch]]
        chosen = chosen.to(self.tokens.device)
        return self.tokens[chosen].long(), self.labels[chosen], rows.to(self.tokens.device)

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """Tokens (n, N) int64 and classes (n,) of the first images."""
        return self.tokens[:count].long(), self.labels[:count]

    def to(self, device: torch.device) -> "Split":
        """The same on another device."""
        return Split(self.tokens.to(device), self.labels.to(device), self.index.to(device))


@functools.lru_cache(maxsize=2)
def _order(size: int, seed: int, epoch: int) -> Tensor:
    """The order of one epoch; kept, because a batch needs a few of a million."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(address(seed, "order", epoch)))


def heldout(index: Tensor, share: float) -> Tensor:
    """Which images (n,), by position in the source, are kept from training: about `share`, always the same ones."""
    return Noise(0, "heldout", index).uniform("split") < share


def class_count(header: dict[str, Any], use_classes: bool, guidance: float) -> int:
    """How many classes a model of these tokens has, 0 for none. ConfigError for guidance without classes."""
    classes = len(header["classes"]) if use_classes else 0
    if guidance and not classes:
        raise ConfigError(
            f"guidance is {guidance:g}, which needs classes, and this data set has none: set guidance to 0"
        )
    return classes


def write_shards(
    directory: Path,
    splits: dict[str, Split],
    header: dict[str, Any],
    shard_images: int,
    codebook_KD: Tensor | None = None,
) -> None:
    """Write splits, header and the VQGAN's codebook into a directory that appears whole or not at all."""
    side = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(side, ignore_errors=True)
    side.mkdir(parents=True)
    listed = {name: _write_split(side, name, split, shard_images) for name, split in splits.items()}
    if codebook_KD is not None:
        np.save(side / "codebook.npy", codebook_KD.cpu().numpy())
    write_json(side / "header.json", {"format": FORMAT, **header, "splits": listed})
    shutil.rmtree(directory, ignore_errors=True)
    side.replace(directory)


def _write_split(directory: Path, name: str, split: Split, shard_images: int) -> dict[str, Any]:
    shards = []
    for number, start in enumerate(range(0, len(split), shard_images)):
        rows = slice(start, start + shard_images)
        path = directory / f"{name}-{number:06}.tar"
        with webdataset.TarWriter(str(path), mtime=0) as writer:  # type: ignore[no-untyped-call]
            writer.write(
                {
                    "__key__": f"{number:06}",
                    "tokens.npy": split.tokens[rows].numpy().astype(np.uint16),
                    "cls.npy": split.labels[rows].numpy(),
                    "index.npy": split.index[rows].numpy(),
                }
            )
        count = len(split.tokens[rows])
        shards.append({"file": path.name, "images": count, "sha256": sha256(path)})
    return {"images": len(split), "shards": shards}


def read_header(directory: Path) -> dict[str, Any]:
    """The header of a shard directory; DataError when it is missing or of another format."""
    path = directory / "header.json"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: `dvc repro` makes it") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON ({error}): delete {directory} and make it again with `dvc repro`"
        ) from None
    if header.get("format") != FORMAT:
        raise DataError(f"{path} has format {header.get('format')}, but this version reads {FORMAT}: make it again")
    return header


def read_codebook(directory: Path) -> Tensor:
    """The VQGAN's table (K, D) that the tokens refer to."""
    path = directory / "codebook.npy"
    if not path.is_file():
        raise DataError(f"{path} is missing: `dvc checkout` or `dvc repro` brings it back")
    return torch.from_numpy(np.load(path))


def read_split(directory: Path, name: str) -> Split:
    """Read one split into memory, each shard checked against the header. DataError when something does not agree."""
    header = read_header(directory)
    if name not in header["splits"]:
        raise DataError(f"{directory} has no split {name!r}, but {', '.join(header['splits'])}")
    return read_shards(directory, header, header["splits"][name]["shards"])


def read_shards(directory: Path, header: dict[str, Any], listed: list[dict[str, Any]]) -> Split:
    """Some shards of a split, as the header lists them, each checked against it."""
    parts = [_read_shard(directory, shard, header) for shard in listed]
    if not parts:
        empty = torch.empty(0, dtype=torch.int64)
        return Split(torch.empty(0, header["tokens"], dtype=torch.int64), empty, empty)
    tokens, labels, index = (np.concatenate(column) for column in zip(*parts, strict=True))
    narrow = np.int16 if header["codes"] <= 2**15 else np.int32
    return Split(torch.from_numpy(tokens.astype(narrow)), torch.from_numpy(labels), torch.from_numpy(index))


def _read_shard(directory: Path, shard: dict[str, Any], header: dict[str, Any]) -> tuple[np.ndarray, ...]:
    path = directory / shard["file"]
    if not path.is_file():
        raise DataError(f"{path} is missing: `dvc checkout` or `dvc repro` brings it back")
    if sha256(path) != shard["sha256"]:
        raise DataError(f"{path} differs from the digest in header.json: delete {directory} and run `dvc repro`")
    # webdataset's own reader leaves its files open; a shard is a plain tar, read without unpickling anything.
    with tarfile.open(path) as tar:
        files = {member.name.partition(".")[2]: tar.extractfile(member) for member in tar}
        arrays = {name: np.load(io.BytesIO(file.read()), allow_pickle=False) for name, file in files.items() if file}
    tokens = arrays["tokens.npy"]
    assert tokens.shape == (shard["images"], header["tokens"]), (path, tokens.shape)
    assert tokens.max(initial=0) < header["codes"], (path, tokens.max())
    return tokens, arrays["cls.npy"], arrays["index.npy"]
