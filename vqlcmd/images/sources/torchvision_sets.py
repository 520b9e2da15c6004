"""Data sets by the name they have in torchvision, which downloads, checks and unpacks them: `torchvision:CIFAR10`."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vqlcmd.images.formats import open_picture
from vqlcmd.images.sources.listing import Entry, class_order, no_classes, short_digest
from vqlcmd.runtime.errors import ConfigError, DataError, shown
from vqlcmd.torchvision_guard import guard_torchvision

PREFIX = "torchvision:"
FOLDER = "torchvision"
"""What torchvision calls `root`, beside the other data sets' folders."""
ROWS = 1024


class _Set(NamedTuple):
    """How torchvision's class is called for each split, where it keeps labels, and its images where they are files."""

    splits: dict[str, dict[str, Any]]
    labels: str | None
    files: Callable[[Any], list[str]] | None = None


def _named(*splits: str) -> dict[str, dict[str, Any]]:
    return {split: {"split": split} for split in splits}


def _aligned_faces(dataset: Any) -> list[str]:
    return [os.path.join(dataset.root, dataset.base_folder, "img_align_celeba", name) for name in dataset.filename]


_TRAIN_OR_TEST = {"train": {"train": True}, "test": {"train": False}}
SETS = {
    "MNIST": _Set(_TRAIN_OR_TEST, "targets"),
    "FashionMNIST": _Set(_TRAIN_OR_TEST, "targets"),
    "KMNIST": _Set(_TRAIN_OR_TEST, "targets"),
    "CIFAR10": _Set(_TRAIN_OR_TEST, "targets"),
    "CIFAR100": _Set(_TRAIN_OR_TEST, "targets"),
    "SVHN": _Set(_named("train", "test", "extra"), "labels"),
    "STL10": _Set(_named("train", "test", "unlabeled", "train+unlabeled"), "labels"),
    "CelebA": _Set(_named("train", "valid", "test", "all"), None, _aligned_faces),
    "Flowers102": _Set(_named("train", "val", "test"), "_labels", lambda dataset: [*map(str, dataset._image_files)]),
}
"""The first split is the one that is meant where none is named."""


class TorchvisionSet:
    """The images of one split, in torchvision's order; arrays stay in memory, files are read one by one.

    `path` is `ROOT/torchvision:NAME[:SPLIT]`, where nothing has to lie: the files are in `ROOT/torchvision`. Of arrays
    the digest covers the pixels, of files their names and sizes; torchvision checks the archives it has downloaded.
    """

    def __init__(self, path: Path, classes: bool = True, download: bool = False) -> None:
        """ConfigError for a name or split that is not known, DataError where the files are missing or damaged."""
        self._how = path, classes
        self._name, self._split = _parsed(path.name)
        known = SETS[self._name]
        self._dataset = _opened(self._name, known.splits[self._split], path.parent / FOLDER, download)
        self._files = known.files(self._dataset) if known.files else None
        self.left_out: dict[str, int] = {}
        labels = None if known.labels is None else np.asarray(getattr(self._dataset, known.labels), dtype=np.int64)
        named = labels is not None and bool((labels >= 0).all())
        self.classes, self.labels = (
            (_class_names(self._dataset, labels), labels)
            if classes and labels is not None and named
            else no_classes(len(self))
        )
        sizes, parts = (0, iter(())) if not len(self) else self._vouchers()
        digest = short_digest([*parts, b"" if labels is None else labels.tobytes()])
        self.entries = (Entry(path=self._split, images=len(self), bytes=sizes, digest=digest),)

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker that is not forked opens the files itself.
        return TorchvisionSet, self._how

    def __len__(self) -> int:
        return len(self._dataset)

    def name(self, i: int) -> str:
        return os.path.basename(self._files[i]) if self._files else f"{self._name} {self._split} {i}"

    def open(self, i: int) -> Image.Image:
        return open_picture(Path(self._files[i])) if self._files else self._dataset[i][0]

    def contents(self, i: int) -> bytes:
        return Path(self._files[i]).read_bytes() if self._files else np.asarray(self._dataset.data[i]).tobytes()

    def _vouchers(self) -> tuple[int, Iterator[bytes]]:
        """How many bytes the images have, and what stands for them in the digest."""
        if self._files:
            sizes = [os.path.getsize(file) if os.path.isfile(file) else 0 for file in self._files]
            return sum(sizes), (
                f"{os.path.basename(file)}\0{size}\0".encode() for file, size in zip(self._files, sizes, strict=True)
            )
        pixels = np.asarray(self._dataset.data)
        return pixels.nbytes, (pixels[start : start + ROWS].tobytes() for start in range(0, len(pixels), ROWS))


def matches(source: str) -> bool:
    """Whether `source`, a path or not, names a data set of torchvision's."""
    return os.path.basename(source).startswith(PREFIX)


def fetch(source: str, root: Path | None) -> Path:
    """The path that stands for `torchvision:NAME[:SPLIT]` below `root`, after a download if it is not there yet."""
    _parsed(source)
    if root is None:
        raise ConfigError(f"{source} needs a place for its files: set VQLCMD_IMAGES to a folder for data sets")
    return TorchvisionSet(root / source, download=True)._how[0]


def _parsed(source: str) -> tuple[str, str]:
    name, _, split = source.removeprefix(PREFIX).partition(":")
    if name not in SETS:
        raise ConfigError(f"torchvision:{shown(name)} is none of {', '.join(SETS)}: choose one, or scan a folder")
    splits = SETS[name].splits
    if split and split not in splits:
        raise ConfigError(f"torchvision:{name} has no split {shown(split)}: choose one of {', '.join(splits)}")
    return name, split or next(iter(splits))


def _opened(name: str, how: dict[str, Any], root: Path, download: bool) -> Any:
    guard_torchvision()
    from torchvision import datasets

    try:
        return getattr(datasets, name)(str(root), download=download, **how)
    except ImportError as error:
        raise DataError(
            f"torchvision's {name} needs the package {error.name}; run `pip install {error.name}`"
        ) from None
    except Exception as error:  # of the network, of archives, of every format that torchvision reads
        why = shown(" ".join(str(error).split()) or type(error).__name__, 300)
        remedy = (
            "try again, or put the files there by hand" if download else f"`vqlcmd scan NAME {PREFIX}{name}` fetches it"
        )
        raise DataError(f"{root}: torchvision finds no whole {name} there ({why}); {remedy}") from None


def _class_names(dataset: Any, labels: np.ndarray) -> tuple[str, ...]:
    """In the order of torchvision's numbers, with the number in front where the names themselves are in another one."""
    count = int(labels.max(initial=-1)) + 1
    given = [str(name).replace("/", "-") for name in getattr(dataset, "classes", [])]
    if len(given) < count:
        return tuple(map(str, range(count)))
    width = len(str(len(given) - 1))
    numbered = [f"{number:0{width}} {name}" for number, name in enumerate(given)]
    return tuple(given) if class_order(given) == tuple(given) else tuple(numbered)
