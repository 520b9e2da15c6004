"""A replacement for shards.Split if tokens do not fit into memory: it reads a window of shards at a time.

The batch of a training step is still a function of (seed, step): an epoch goes through the shards in a seeded order,
consecutive shards form a window, and a window's images are shuffled. So a resumed run gets the same batches as an
uninterrupted one, on any number of processes. Images are mixed only within a window, which should hold many batches.
"""

import itertools
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqlcmd.rng import address
from vqlcmd.tokens import shards
from vqlcmd.tokens.header import listed_split
from vqlcmd.tokens.shards import Split

BYTES_BESIDE_TOKENS = 16
"""Per image: its class and its position in the source."""
WINDOWS_IN_MEMORY = 6
"""Peak memory, in windows: the current one, the one before it for a batch that spans two, the next one with its copies
before concatenation and shuffling, and what the allocator keeps. 5.6 were measured: docs/benchmarks.md."""


class Window(NamedTuple):
    """Shard numbers, and the position in the epoch of the image after its last one."""

    shards: list[int]
    end: int


class StreamedSplit:
    """Windows of about `window_images` images each, on `device`; the next one is read while the current one is used."""

    def __init__(self, directory: Path, name: str, window_images: int, device: torch.device):
        self._directory, self._header, self._device = directory, shards.read_header(directory), device
        listed = listed_split(directory, self._header, name)
        self._listed: list[dict[str, Any]] = listed["shards"]
        self._window_images, self._size = window_images, listed["images"]
        self._reader = ThreadPoolExecutor(max_workers=1)
        self._windows: dict[tuple[int, int, int], Future[Split]] = {}
        self._plans: dict[tuple[int, int], list[Window]] = {}

    def __len__(self) -> int:
        return self._size

    def batch(self, seed: int, step: int, size: int, part: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """The batch of training step `step`, as shards.Split.batch gives it."""
        rows = torch.arange(size)[part]
        positions = step * size + rows
        epochs, offsets = positions // len(self), positions % len(self)
        pieces = []
        for epoch in epochs.unique().tolist():
            here = offsets[epochs == epoch]
            ends = torch.tensor([window.end for window in self._plan(seed, epoch)])
            # Rows of a batch are consecutive, so these are one window or two.
            for number in torch.bucketize(here, ends, right=True).unique().tolist():
                start = int(ends[number - 1]) if number else 0
                inside = (here[(here >= start) & (here < ends[number])] - start).to(self._device)
                held = self._window(seed, epoch, number)
                pieces.append((held.tokens[inside].long(), held.labels[inside]))
        tokens, labels = (torch.cat(column) for column in zip(*pieces, strict=True))
        return tokens, labels, rows.to(self._device)

    def first(self, count: int) -> tuple[Tensor, Tensor]:
        """Tokens (n, N) int64 and classes (n,) of the first images, at most one shard's."""
        return shards.read_shards(self._directory, self._header, self._listed[:1]).to(self._device).first(count)

    def _plan(self, seed: int, epoch: int) -> list[Window]:
        """The windows of an epoch."""
        if (seed, epoch) not in self._plans:
            generator = torch.Generator().manual_seed(address(seed, "shards", epoch))
            windows, start = [Window([], 0)], 0
            for shard in torch.randperm(len(self._listed), generator=generator).tolist():
                images = self._listed[shard]["images"]
                if windows[-1].shards and windows[-1].end - start + images > self._window_images:
                    start = windows[-1].end
                    windows.append(Window([], start))
                windows[-1].shards.append(shard)
                windows[-1] = windows[-1]._replace(end=windows[-1].end + images)
            self._plans = {key: plan for key, plan in self._plans.items() if key[1] >= epoch - 1}
            self._plans[seed, epoch] = windows
        return self._plans[seed, epoch]

    def _window(self, seed: int, epoch: int, number: int) -> Split:
        """A window's images, shuffled; also starts to read the next window."""
        following = (seed, epoch, number + 1) if number + 1 < len(self._plan(seed, epoch)) else (seed, epoch + 1, 0)
        wanted = (seed, epoch, number)
        for key in (wanted, following):
            if key not in self._windows:
                self._windows[key] = self._reader.submit(self._read, *key)
        # Insertion order is age: of the windows before the wanted one, a batch that spans two needs only the last.
        for old in list(itertools.takewhile(lambda key: key != wanted, self._windows))[:-1]:
            del self._windows[old]
        return self._windows[wanted].result()

    def _read(self, seed: int, epoch: int, number: int) -> Split:
        listed = [self._listed[shard] for shard in self._plan(seed, epoch)[number].shards]
        split = shards.read_shards(self._directory, self._header, listed)
        generator = torch.Generator().manual_seed(address(seed, "window", epoch, number))
        order = torch.randperm(len(split), generator=generator)
        return Split(split.tokens[order], split.labels[order], split.index[order]).to(self._device)


def open_split(directory: Path, name: str, device: torch.device, memory: int) -> Split | StreamedSplit:
    """A split in memory where it fits into `memory` bytes, else streamed in windows that do."""
    header = shards.read_header(directory)
    each = 2 * header["tokens"] * (2 if header["codes"] > 2**15 else 1) + BYTES_BESIDE_TOKENS
    images = listed_split(directory, header, name)["images"]
    if images * each <= memory:
        return shards.read_split(directory, name).to(device)
    window = max(memory // WINDOWS_IN_MEMORY // each, 1)
    print(
        f"{name}: {images} sequences of {each} bytes are more than the {memory / 1e6:.0f} MB for tokens: "
        f"streamed in windows of about {window} sequences",
        flush=True,
    )
    return StreamedSplit(directory, name, window, device)
