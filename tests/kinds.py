"""The same pictures as every kind of source: a folder, tar shards, a zip archive, an LMDB."""

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import lmdb
import numpy as np
from PIL import Image

Layout = Literal[0, 1, 2]
"""tarfile's numbers for ustar, GNU and pax."""

PICTURES: dict[str, bytes]
"""{path: contents}: four pictures of noise in each of three classes, in the order of their paths."""


def encoded(seed: int, ending: str) -> bytes:
    """A picture of noise, of some odd size."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (9 + seed, 20 - seed, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, {"jpg": "JPEG"}.get(ending, ending), quality=90)
    return file.getvalue()


PICTURES = {
    f"{name}/{number}.{ending}": encoded(4 * place + number, ending)
    for place, name in enumerate(("ant", "bee", "cat"))
    for number, ending in enumerate(("png", "jpg", "webp", "png"))
}


def folder(root: Path, pictures: dict[str, bytes]) -> Path:
    """A tree of files."""
    for name, contents in pictures.items():
        (root / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "tree" / name).write_bytes(contents)
    return root / "tree"


def tar(path: Path, members: dict[str, bytes], layout: Layout = tarfile.GNU_FORMAT) -> Path:
    """One archive of these members in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=layout) as archive:
        for name, contents in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
    return path


def tars(root: Path, pictures: dict[str, bytes]) -> Path:
    """Shards of five pictures each as webdataset has them, with the class in KEY.cls, KEY.json or both in turn."""
    names = list(pictures)
    for start in range(0, len(names), 5):
        members: dict[str, bytes] = {}
        for number, name in enumerate(names[start : start + 5], start):
            label, _, ending = name.replace(".", "/").split("/")
            # In the order of their names, as webdataset sorts them: the class before the picture, then after it.
            if number % 3 != 1:
                members[f"{number:04}.cls"] = label.encode()
            members[f"{number:04}.{ending}"] = pictures[name]
            if number % 3:
                members[f"{number:04}.json"] = json.dumps({"label": label, "width": 3}).encode()
        tar(root / "shards" / f"set-{start // 5:06}.tar", members)
    return root / "shards"


def zipped(root: Path, pictures: dict[str, bytes], method: int = zipfile.ZIP_STORED, labels: object = ...) -> Path:
    """One archive, packed from the last picture to the first, with `labels` in dataset.json where there are any."""
    path = root / "pictures.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, contents in reversed(pictures.items()):
            archive.writestr(name, contents)
        if labels is not ...:
            archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path


def database(root: Path, pictures: dict[str, bytes]) -> Path:
    """An LMDB with the paths as keys."""
    path = root / "set_lmdb"
    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for name, contents in pictures.items():
            transaction.put(name.encode(), contents)
    return path


MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "folder": folder,
    "tar": tars,
    "zip": zipped,
    "lmdb": database,
}
