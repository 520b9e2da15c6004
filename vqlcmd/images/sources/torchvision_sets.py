"""torchvision's data sets by name, such as `torchvision:CIFAR10`: torchvision downloads, checks and unpacks them."""

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
"""torchvision's `root`, a folder beside those of the other data sets."""
ROWS = 1024


class _Set(NamedTuple):
    """torchvision's arguments for each split, its attribute with labels, and the images' paths if they are files."""

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
"""Where no split is named, the first one is used."""


class TorchvisionSet:
    """The images of one split, in torchvision's order. Arrays stay in memory; files are read one by one.

    `path` is `ROOT/torchvision:NAME[:SPLIT]`, which need not exist: the files are in `ROOT/torchvision`. The digest
    covers the pixels of arrays, and the names and sizes of files; torchvision checks the archives that it downloads.
    """

    def __init__(self, path: Path, classes: bool = True, download: bool = False) -> None:
        """Raises ConfigError for an unknown name or split, and DataError if files are missing or damaged."""
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
        # Pickled as its arguments: a worker that is not forked opens the files itself.
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
        """The total size of the images in bytes, and the parts that the digest covers."""
        if self._files:
            sizes = [os.path.getsize(file) if os.path.isfile(file) else 0 for file in self._files]
            return sum(sizes), (
                f"{os.path.basename(file)}\0{size}\0".encode() for file, size in zip(self._files, sizes, strict=True)
            )
        pixels = np.asarray(self._dataset.data)
        return pixels.nbytes, (pixels[start : start + ROWS].tobytes() for start in range(0, len(pixels), ROWS))


def matches(source: str) -> bool:
    """Whether the last component of `source` names one of torchvision's data sets: `torchvision:NAME`."""
    return os.path.basename(source).startswith(PREFIX)


def fetch(source: str, root: Path | None) -> Path:
    """Downloads `torchvision:NAME[:SPLIT]` below `root` unless it is there; returns the path that stands for it.

    Raises ConfigError without a `root` or for an unknown name, and DataError if torchvision cannot provide the files.
    """
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
    except Exception as error:  # errors of the network, of archives, and of all formats that torchvision reads
        why = shown(" ".join(str(error).split()) or type(error).__name__, 300)
        remedy = (
            "try again, or put the files there by hand" if download else f"`vqlcmd scan NAME {PREFIX}{name}` fetches it"
        )
        raise DataError(f"{root}: torchvision finds no whole {name} there ({why}); {remedy}") from None


def _class_names(dataset: Any, labels: np.ndarray) -> tuple[str, ...]:
    """Class names in the order of torchvision's numbers, with the number in front if `class_order` would change it."""
    count = int(labels.max(initial=-1)) + 1
    given = [str(name).replace("/", "-") for name in getattr(dataset, "classes", [])]
    if len(given) < count:
        return tuple(map(str, range(count)))
    width = len(str(len(given) - 1))
    numbered = [f"{number:0{width}} {name}" for number, name in enumerate(given)]
    return tuple(given) if class_order(given) == tuple(given) else tuple(numbered)
