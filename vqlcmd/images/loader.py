"""Images of any source as uint8 batches of one size; images that cannot be read are listed by name.

Shapes: B images, 3 channels (red, green, blue), S x S pixels.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vqlcmd.images.crops import Recipe, crop_views
from vqlcmd.images.formats import quiet, reason
from vqlcmd.images.manifest import Manifest, check, shortened
from vqlcmd.images.rgb import to_rgb
from vqlcmd.images.sources import DIGITS, KINDS, BuiltIn, ImageSource
from vqlcmd.rng import CounterRNG, address
from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import DataError, shown

ROOT_VARIABLE = "VQLCMD_IMAGES"
NAMED_AT_MOST = 20
# Images a worker hands over at a time: few, because they wait in /dev/shm, which is 64 MB in many containers.
CHUNK = 16
CHUNK_BYTES = CHUNK * 3 * 256**2


class Batch(NamedTuple):
    """`images` uint8 [B, 3, S, S], `labels` int64 [B], `index` int64 [B]: positions in the source.

    If the recipe makes several crop views per image, they are consecutive rows with the same index.
    """

    images: Tensor
    labels: Tensor
    index: Tensor  # pyright: ignore[reportIncompatibleMethodOverride]  (hides tuple.index, which is not used)


def open_images(manifest: Manifest, root: Path | None) -> ImageSource:
    """Opens the images of a manifest: those at `root / manifest.folder`, or a built-in source.

    Raises DataError if nothing is there, or if the source differs from the manifest (`vqlcmd.images.manifest.check`).
    """
    paths.picture_memory()  # so that a wrong setting is one error here, not one per image
    classes = bool(manifest.classes)
    kind = KINDS[manifest.kind]
    if isinstance(kind, BuiltIn) or manifest.folder is None:
        assert isinstance(kind, BuiltIn), manifest
        source, where = kind.open(classes), DIGITS
    else:
        place = kind.place(Path(manifest.folder))
        remedy = f"set {ROOT_VARIABLE} to the folder that holds '{place}', the images of {manifest.name!r}"
        if root is None:
            raise DataError(f"no place to look for images; {remedy}")
        path = root / manifest.folder
        if not (root / place).exists():
            raise DataError(f"{root / place}: nothing is there; {remedy}")
        source, where = kind.open(path, classes), str(path)
    check(manifest, source, where)
    return source


def prepare(image: Image.Image, recipe: Recipe) -> np.ndarray:
    """The single crop of an image that is in no source, uint8 [3, S, S]. Raises DataError like `to_rgb`."""
    return crop_views(to_rgb(image, recipe.background), recipe.deterministic(), 0)[0]


def stream(
    source: ImageSource,
    recipe: Recipe,
    *,
    batch_size: int,
    broken: dict[str, str],
    workers: int = 0,
    indices: Sequence[int] | np.ndarray | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Yields batches of the readable images among `indices` (default: all), in order.

    A batch covers `images_per_batch(batch_size, recipe)` of the indices. It does not depend on `workers`, on the other
    batches, or on `share` = (r, W), which selects batches r, r + W, ... It may be shorter, even empty: images that
    cannot be read are left out and recorded in `broken` as {name: reason}, for `raise_if_broken`. Leaves torch's global
    random state alone.
    """
    order = np.arange(len(source)) if indices is None else np.asarray(indices, dtype=np.int64)
    assert not len(order) or 0 <= order.min() <= order.max() < len(source), (order.min(), order.max(), len(source))
    each = images_per_batch(batch_size, recipe)
    starts = range(each * share[0], len(order), each * share[1])
    reader = _Reader(source, recipe)
    at_once = max(1, min(each, CHUNK, CHUNK_BYTES // (recipe.views * 3 * recipe.size**2)))
    chunks = (
        order[place : min(place + at_once, start + each)].tolist()
        for start in starts
        for place in range(start, min(start + each, len(order)), at_once)
    )
    read = iter(
        DataLoader(
            reader,
            batch_sampler=chunks,
            num_workers=workers,
            collate_fn=reader.collate,
            generator=torch.Generator(),
            worker_init_fn=_ignore_signals,
        )
    )
    for start in starts:
        held = []
        for _ in range(start, min(start + each, len(order)), at_once):
            chunk, unreadable = next(read)
            broken |= unreadable
            held.append(chunk)
        yield _joined(held)


def images_per_batch(batch_size: int, recipe: Recipe) -> int:
    """The number of images that make at most `batch_size` crop views; at least one."""
    assert batch_size > 0, batch_size
    return max(1, batch_size // recipe.views)


def raise_if_broken(broken: dict[str, str], total: int, skip_broken: bool) -> None:
    """Raises DataError, in one line, if images could not be read.

    With `skip_broken`, only if none of the `total` images could be read.
    """
    if broken and (not skip_broken or len(broken) == total):
        remedy = "repair or remove them and scan again" + ("" if skip_broken else ", or set images.skip_broken: true")
        raise DataError(f"{len(broken)} of {total} images cannot be read: {named(broken)}; {remedy}")


def named(broken: dict[str, str]) -> str:
    """The images in `broken` {name: reason} in one line, by name, the first ones of many."""
    return shortened([f"{shown(name)} ({why})" for name, why in sorted(broken.items())], NAMED_AT_MOST)


def subsample(count: int, limit: int | None, seed: int, purpose: str) -> np.ndarray:
    """`limit` of the numbers below `count`, drawn at random, in order; all of them if there are no more.

    Each `purpose` has a draw of its own for a `seed`, so that the subsets of two purposes are independent.
    """
    if limit is None or limit >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(address(seed, purpose)).choice(count, limit, replace=False))


def over_classes(labels: np.ndarray) -> np.ndarray:
    """All positions, in a fixed random order that takes the classes in turn.

    Every class comes once before any comes again, until a class has no more images.
    """
    drawn = CounterRNG(0, "previews", torch.arange(len(labels))).uniform("order").numpy().argsort(kind="stable")
    by_class = drawn[labels[drawn].argsort(kind="stable")]
    _, first, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    turn = np.empty(len(labels), dtype=np.int64)
    turn[by_class] = np.arange(len(labels)) - np.repeat(first, counts)
    return drawn[turn[drawn].argsort(kind="stable")]


def load_all(
    source: ImageSource,
    recipe: Recipe,
    *,
    limit: int | None = None,
    seed: int = 0,
    purpose: str = "fit",
    workers: int = 0,
    skip_broken: bool = False,
    broken: dict[str, str] | None = None,
) -> Batch:
    """All images of a small source in one batch, in order, or a subset of `limit` images chosen by `subsample`.

    `broken`, `skip_broken` and DataError are as in `stream` and `raise_if_broken`; skipped images are not replaced.
    """
    indices, broken = subsample(len(source), limit, seed, purpose), {} if broken is None else broken
    batches = list(stream(source, recipe, batch_size=CHUNK, workers=workers, indices=indices, broken=broken))
    raise_if_broken(broken, len(indices), skip_broken)
    return _joined(batches)


def _ignore_signals(_: int) -> None:
    """Ignores SIGINT and SIGTERM: batch systems signal all processes, but the reading one decides when workers stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True)
class _Reader(Dataset[tuple[int, Tensor | str]]):
    """Decodes one image; runs in the workers."""

    source: ImageSource
    recipe: Recipe

    def __getitem__(self, index: int) -> tuple[int, Tensor | str]:
        # Returns the reason, since an exception would end the whole chunk.
        try:
            with quiet(), self.source.open(index) as image:
                return index, torch.from_numpy(crop_views(to_rgb(image, self.recipe.background), self.recipe, index))
        except Exception as error:
            return index, reason(error)

    def collate(self, items: list[tuple[int, Tensor | str]]) -> tuple[Batch, dict[str, str]]:
        images = [image for _, image in items if isinstance(image, Tensor)]
        index = [i for i, image in items if isinstance(image, Tensor) for _ in range(self.recipe.views)]
        broken = {self.source.name(i): reason for i, reason in items if isinstance(reason, str)}
        joined = torch.cat(images) if images else torch.empty((0, 3, self.recipe.size, self.recipe.size)).byte()
        labels = torch.from_numpy(self.source.labels[index])
        return Batch(joined, labels, torch.tensor(index, dtype=torch.int64)), broken


def _joined(batches: list[Batch]) -> Batch:
    return Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
