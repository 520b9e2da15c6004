"""The images of a fit: held in memory or decoded from disk during training, their order, and random crops of them.

Shapes: B images, 3 channels, S pixels a side, T pixels a side before cropping.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from vqlcmd.images import loader
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import DataError


class Pictures(Protocol):
    """Images numbered from 0, all of one size, uint8."""

    @property
    def broken(self) -> dict[str, str]:
        """{file: reason} of those that could not be read so far."""
        ...

    def __len__(self) -> int: ...

    def readable(self) -> int:
        """How many are left without those."""
        ...

    def read(self, rows: Tensor) -> Tensor:
        """The images `rows` (n,) except unreadable ones: [B, 3, T, T]."""
        ...

    def stream(self, rows_MB: Tensor) -> Iterator[Tensor]:
        """M batches of B images, one after the other: [B, 3, T, T] each."""
        ...


@dataclass(frozen=True)
class InMemory:
    """Images [n, 3, T, T] in memory; `broken` are no part of them."""

    images: Tensor
    broken: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def readable(self) -> int:
        return len(self.images)

    def read(self, rows: Tensor) -> Tensor:
        return self.images[rows.to(self.images.device)]

    def stream(self, rows_MB: Tensor) -> Iterator[Tensor]:
        return map(self.read, rows_MB)


@dataclass(frozen=True)
class OnDisk:
    """The images of a source at `positions` (n,), `broken` ones included; `workers` processes decode in training."""

    source: loader.ImageSource
    recipe: loader.Recipe
    positions: Tensor
    workers: int
    skip_broken: bool
    broken: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.positions)

    def readable(self) -> int:
        return len(self.positions) - len(self.broken)

    def read(self, rows: Tensor) -> Tensor:
        batches = loader.stream(
            self.source,
            self.recipe,
            batch_size=loader.CHUNK,
            broken=self.broken,
            workers=self.workers,
            indices=self.positions[rows].numpy(),
        )
        images = torch.cat([batch.images for batch in batches])
        loader.raise_if_broken(self.broken, len(self), self.skip_broken)
        return images

    def stream(self, rows_MB: Tensor) -> Iterator[Tensor]:
        """As in `Pictures`, with an unreadable image replaced by another one of its batch.

        DataError as in `raise_if_broken`, or where no image of a batch can be read.
        """
        size = rows_MB.shape[1]
        batches = loader.stream(
            self.source,
            self.recipe,
            batch_size=size,
            broken=self.broken,
            workers=self.workers,
            indices=self.positions[rows_MB.flatten()].numpy(),
        )
        for batch in batches:
            loader.raise_if_broken(self.broken, len(self), self.skip_broken)
            if len(batch.images):
                yield batch.images[torch.arange(size) % len(batch.images)]
            else:
                raise DataError(f"none of {size} images in a row can be read: repair or remove them and scan again")


def open_pictures(
    source: loader.ImageSource,
    recipe: loader.Recipe,
    positions: Tensor,
    *,
    limit: int,
    workers: int,
    skip_broken: bool,
) -> Pictures:
    """The images at `positions`: in memory if they are at most `limit`, else read from disk.

    DataError where images cannot be read and `skip_broken` is false.
    """
    disk = OnDisk(source, recipe, positions, workers, skip_broken)
    return disk if len(disk) > limit else InMemory(disk.read(torch.arange(len(disk))), disk.broken)


class Order:
    """Batches of `size` images, in one random permutation after another; `part` is the rows of this process.

    The generator `random` is shared with the rest of the fit; it is the same in every process, and so are its draws.
    """

    def __init__(self, pictures: Pictures, size: int, part: slice, random: torch.Generator) -> None:
        self._pictures, self._size, self._part, self._random = pictures, size, part, random
        self._left = torch.empty(0, dtype=torch.int64)
        self._stream: Iterator[Tensor] | None = None

    def batch(self) -> Tensor:
        """The next images of this process: uint8 [B, 3, T, T]."""
        while len(self._left) < self._size:
            self._left = torch.cat([self._left, torch.randperm(len(self._pictures), generator=self._random)])
            self._stream = None
        if self._stream is None:
            whole = len(self._left) // self._size * self._size
            self._stream = self._pictures.stream(self._left[:whole].view(-1, self._size)[:, self._part])
        self._left = self._left[self._size :]
        return next(self._stream)

    def state_dict(self) -> dict[str, Any]:
        """What is left of the permutation, and the images that could not be read.

        The generator's state is saved by its owner.
        """
        return {"left": self._left, "broken": dict(self._pictures.broken)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self._left, self._stream = saved["left"], None
        self._pictures.broken.update(saved.get("broken", {}))


def random_views(images_BCTT: Tensor, size: int, flip: bool, rng: CounterRNG) -> Tensor:
    """A random crop of `size` x `size` pixels of each image, mirrored half of the time if `flip`: [B, 3, S, S]."""
    free = images_BCTT.shape[-1] - size
    if free:
        corners = (rng.uniform("corner", 2) * (free + 1)).long().tolist()
        cut = [image[:, y : y + size, x : x + size] for image, (y, x) in zip(images_BCTT, corners, strict=True)]
        images_BCTT = torch.stack(cut)
    if flip:
        mirrored_B = rng.uniform("flip").to(images_BCTT.device) < 0.5
        images_BCTT = torch.where(mirrored_B[:, None, None, None], images_BCTT.flip(3), images_BCTT)
    return images_BCTT


def middle_views(images_BCTT: Tensor, size: int) -> Tensor:
    """The centre crop of each image: [B, 3, S, S]."""
    start = (images_BCTT.shape[-1] - size) // 2
    return images_BCTT[..., start : start + size, start : start + size]
