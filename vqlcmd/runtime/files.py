"""Files that are written whole or not at all."""

import csv
import glob
import hashlib
import json
import math
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from vqlcmd.runtime.artefacts.write_errors import writing

_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "host"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a side file to write to; it replaces `path` once the block ends well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.stem)}.*{glob.escape(path.suffix)}"):
        if _abandoned(left, path):
            left.unlink(missing_ok=True)
    # The extension stays, because some writers choose a format by it.
    side = path.with_name(f".{path.stem}.{_HOST}.{os.getpid()}{path.suffix}")
    try:
        with writing(path, side):
            yield side
            with side.open("rb") as written:
                os.fsync(written.fileno())
            side.replace(path)
    finally:
        side.unlink(missing_ok=True)


def _abandoned(side: Path, path: Path) -> bool:
    """Whether `side` is a side file of `path` whose writer, a process of this machine, is dead."""
    owner = side.name.removeprefix(f".{path.stem}.").removesuffix(path.suffix).split(".")
    ours = len(owner) == 2 and owner[0] == _HOST and re.fullmatch(r"[0-9]{1,9}", owner[1]) is not None
    return ours and not psutil.pid_exists(int(owner[1]))


def replace_folder(source: Path, target: Path) -> None:
    """Replaces the folder `target` by the contents of `source`, whole or not at all; `source` stays."""
    side = target.with_name(f".{target.name}.partial")
    shutil.rmtree(side, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, side, copy_function=link_or_copy)
    shutil.rmtree(target, ignore_errors=True)
    side.replace(target)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Makes `target` a hard link to the file `source`, or a copy if the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        # Also if the target is on another file system.
        shutil.copy2(source, target)


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, values: dict[str, Any] | list[Any]) -> None:
    """Writes JSON with sorted keys and six significant digits; NaN and infinities, which are not JSON, become null."""
    with atomic_write(path) as side:
        side.write_text(json.dumps(_plain(values), indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def write_tsv(path: Path, rows: list[dict[str, float]]) -> None:
    """Writes rows of numbers as tab-separated values: six significant digits, columns in order of first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as side, side.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([f"{row[name]:.6g}" if name in row else "" for name in columns] for row in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
