"""Packed token shards: each tar file holds the tokens of thousands of images, and a header describes all of them.

A directory holds SPLIT-000000.tar, ... and header.json, which has the digest of every other file. Equal tokens give
equal bytes.
"""

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from vqlcmd.rng import CounterRNG, address
from vqlcmd.runtime.artefacts.write_errors import writing
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import link_or_copy, sha256, write_json
from vqlcmd.runtime.safetensors_file import load_weights, save_weights
from vqlcmd.tokens.header import FORMAT, check_codes, checked_file, listed_split, read_header, shard_name
from vqlcmd.tokens.record import parse_npy, read_record, write_record

NONE_HELD_OUT = "nothing is held out: tokenize.holdout is 0, or too small for so little data"
"""The reason that is given where a metric of held-out images or blocks of text is null."""
CODEBOOK, PREVIEWS = "codebook.npy", "previews.safetensors"


@dataclass(frozen=True)
class Split:
    """Tokens (n, N), classes (n,) and source positions (n,) of one split, in memory."""

    tokens: Tensor
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, seed: int, step: int, size: int, part: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of training step `step`: tokens (b, N) int64, classes (b,), and rows (b,), positions in the batch.

        Batches go through one seeded permutation of the split after another; `part` selects the rows of one process.
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
        """Tokens (n, N) int64 and classes (n,) of the first n = min(count, len(self)) images."""
        return self.tokens[:count].long(), self.labels[:count]

    def to(self, device: torch.device) -> "Split":
        """The same split on another device."""
        return Split(self.tokens.to(device), self.labels.to(device), self.index.to(device))


@functools.lru_cache(maxsize=2)
def _order(size: int, seed: int, epoch: int) -> Tensor:
    """The permutation of one epoch; cached, since a batch needs only a few of its entries."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(address(seed, "order", epoch)))


def heldout(index: Tensor, share: float) -> Tensor:
    """Mask (n,) of the images, given by position in the source, that are held out: about a fraction `share`.

    A position is always on the same side.
    """
    return CounterRNG(0, "heldout", index).uniform("split") < share


def check_training_images(count: int, share: float) -> None:
    """ConfigError where none of `count` images are left to train on."""
    if count and bool(heldout(torch.arange(count), share).all()):
        raise ConfigError(f"tokenize.holdout {share:g} keeps all {count} images from training: lower it")


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
    """Write splits, header and the VQGAN's codebook into a directory, which appears whole or not at all."""
    with ShardWriter(directory, shard_images) as writer:
        for name, split in splits.items():
            writer.add(name, split)
        writer.finish(header, codebook_KD)


class ShardWriter:
    """Writes shards like `write_shards`, for splits that come in pieces: holds little more than a shard of each split.

    `keep` is a folder for the shards of an unfinished directory, from which an interrupted run can be resumed.
    """

    def __init__(self, directory: Path, shard_images: int, keep: Path | None = None):
        self._directory, self._shard_images = directory, shard_images
        self._partial = directory.with_name(f".{directory.name}.partial")
        self._side, self._keep = keep or self._partial, keep is not None
        self._waiting: dict[str, list[Split]] = {}
        self._listed: dict[str, list[dict[str, Any]]] = {}
        if not self._keep:
            shutil.rmtree(self._side, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)

    @property
    def shards(self) -> int:
        """Number of shards written so far."""
        return sum(map(len, self._listed.values()))

    def count(self, name: str) -> int:
        """Number of images in a split so far."""
        written = sum(shard["images"] for shard in self._listed.get(name, []))
        return written + sum(map(len, self._waiting.get(name, [])))

    def state_dict(self) -> dict[str, Any]:
        """The state, for a run that is resumed later with the same `keep`."""
        joined = {name: vars(_joined(waiting)) for name, waiting in self._waiting.items()}
        return {"waiting": joined, "listed": self._listed}

    def load_state_dict(self, saved: dict[str, Any]) -> bool:
        """Continue from a saved state, if its shards are unchanged; otherwise change nothing and return False.

        Shards written after that state are written again.
        """
        for name, number, shard in (
            (name, i, s) for name, listed in saved["listed"].items() for i, s in enumerate(listed)
        ):
            path = self._side / shard_name(name, number)
            if shard["file"] != path.name or not path.is_file() or sha256(path) != shard["sha256"]:
                return False
        self._waiting = {name: [Split(**columns)] for name, columns in saved["waiting"].items()}
        self._listed = saved["listed"]
        return True

    def add(self, name: str, piece: Split) -> None:
        """Add the next images of a split; a piece without images creates a split that may stay empty."""
        self._listed.setdefault(name, [])
        waiting = self._waiting.setdefault(name, [])
        waiting.append(piece)
        if sum(map(len, waiting)) >= self._shard_images:
            joined = _joined(waiting)
            whole = len(joined) // self._shard_images * self._shard_images
            for start in range(0, whole, self._shard_images):
                self._write(name, _rows(joined, slice(start, start + self._shard_images)))
            self._waiting[name] = [_rows(joined, slice(whole, None))]

    def finish(
        self, header: dict[str, Any], codebook_KD: Tensor | None = None, previews: dict[str, Tensor] | None = None
    ) -> None:
        """Write the remaining images, header, codebook and previews, and put the directory in its place."""
        check_codes(header["codes"], self._directory)
        self._side.mkdir(parents=True, exist_ok=True)
        for name, waiting in self._waiting.items():
            if any(map(len, waiting)):
                self._write(name, _joined(waiting))
        files = []
        if codebook_KD is not None:
            with writing(self._side / CODEBOOK):
                np.save(self._side / CODEBOOK, codebook_KD.cpu().float().numpy())
            files.append(CODEBOOK)
        if previews is not None:
            save_weights(self._side / PREVIEWS, "previews", previews, {})
            files.append(PREVIEWS)
        splits = {
            name: {"images": sum(shard["images"] for shard in shards), "shards": shards}
            for name, shards in self._listed.items()
        }
        digests = {name: sha256(self._side / name) for name in files}
        write_json(self._side / "header.json", {"format": FORMAT, **header, "splits": splits, "files": digests})
        if self._keep:
            # A copy: a run interrupted from here on is resumed from `keep`, which is removed at the end of the run.
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)
            names = [shard["file"] for shards in self._listed.values() for shard in shards]
            for name in [*names, *files, "header.json"]:
                link_or_copy(self._side / name, self._partial / name)
        shutil.rmtree(self._directory, ignore_errors=True)
        self._partial.replace(self._directory)

    def _write(self, name: str, shard: Split) -> None:
        number = len(self._listed[name])
        path = self._side / shard_name(name, number)
        self._side.mkdir(parents=True, exist_ok=True)
        with writing(path):
            write_record(path, number, shard.tokens.numpy(), shard.labels.numpy(), shard.index.numpy())
        self._listed[name].append({"file": path.name, "images": len(shard), "sha256": sha256(path)})


def _rows(split: Split, rows: slice) -> Split:
    return Split(split.tokens[rows], split.labels[rows], split.index[rows])


def _joined(pieces: list[Split]) -> Split:
    columns = zip(*((piece.tokens, piece.labels, piece.index) for piece in pieces), strict=True)
    return Split(*(torch.cat(column) for column in columns))


def read_codebook(directory: Path) -> Tensor:
    """The codebook (K, D) float32 that the tokens refer to. DataError where it is missing or damaged."""
    header = read_header(directory)
    path = checked_file(directory, CODEBOOK, header["files"].get(CODEBOOK))
    try:
        table = parse_npy(path.read_bytes(), "<f4", (header["codes"], None), CODEBOOK)
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): delete {directory} and run `dvc repro`") from None
    return torch.from_numpy(table.copy())


def read_previews(directory: Path) -> tuple[Tensor, Tensor]:
    """A few of the images, uint8 (n, 3, S, S), and their classes (n,), for figures of reconstructions.

    DataError where they are missing or damaged.
    """
    header = read_header(directory)
    path = checked_file(directory, PREVIEWS, header["files"].get(PREVIEWS))
    tensors, _ = load_weights(path, "previews")
    images, labels = (tensors.get(name, torch.empty(0)) for name in ("images", "labels"))
    right = (images.dtype, images.ndim, images.shape[1:2], labels.dtype) == (torch.uint8, 4, (3,), torch.int64)
    within = right and bool(((labels >= 0) & (labels < max(len(header["classes"]), 1))).all())
    if not within or labels.shape != images.shape[:1]:
        raise DataError(f"{path} is damaged (it holds no pictures with classes): delete {directory}, and `dvc repro`")
    return images, labels


def read_split(directory: Path, name: str) -> Split:
    """Read one split into memory, each shard checked against the header. DataError where they disagree."""
    header = read_header(directory)
    return read_shards(directory, header, listed_split(directory, header, name)["shards"])


def read_shards(directory: Path, header: dict[str, Any], listed: list[dict[str, Any]]) -> Split:
    """Some shards of a split, as the header lists them, each checked against it."""
    parts = [
        read_record(checked_file(directory, shard["file"], shard["sha256"]), shard["images"], header)
        for shard in listed
    ]
    if not parts:
        empty = torch.empty(0, dtype=torch.int64)
        return Split(torch.empty(0, header["tokens"], dtype=torch.int64), empty, empty)
    tokens, labels, index = (np.concatenate(column) for column in zip(*parts, strict=True))
    narrow = np.int16 if header["codes"] <= 2**15 else np.int32
    return Split(torch.from_numpy(tokens.astype(narrow)), torch.from_numpy(labels), torch.from_numpy(index))
