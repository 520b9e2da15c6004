"""Resumable state, whole or absent, of one configuration."""

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, TextIO

import torch

from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.files import atomic_write


def fingerprint(*parts: Any) -> str:
    """16 hex digits that name a configuration: equal parts, equal name. Parts are JSON values or bytes."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:16]


def sources(*folders: Path) -> bytes:
    """Digest of the Python files in `folders`: state that other code wrote is not resumed."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.digest()


class State:
    """A folder with the state of one unfinished run. Inside `with`, a writer holds it alone; others only read.

    DataError when another process holds it.
    """

    def __init__(self, directory: Path, *, writer: bool = True):
        self.directory, self.writer = directory, writer
        self._file = directory / "state.pt"
        self._lock: TextIO | None = None

    def __enter__(self) -> "State":
        if self.writer:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = (self.directory / "lock").open("a+")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._lock.seek(0)
                owner = self._lock.read() or "unknown"
                self._lock.close()
                raise DataError(
                    f"{self.directory} is in use by process {owner}, with the same parameters: wait for it or stop it"
                ) from None
            self._lock.truncate(0)
            self._lock.write(str(os.getpid()))
            self._lock.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def load(self) -> dict[str, Any] | None:
        """What was last saved, tensors on the CPU; None for a fresh start."""
        if not self._file.exists():
            return None
        return torch.load(self._file, map_location="cpu", weights_only=True)

    def save(self, values: dict[str, Any]) -> None:
        """Replace the saved state: tensors, numbers, strings, and lists and dicts of them. Nothing for a reader."""
        if self.writer:
            with atomic_write(self._file) as side:
                torch.save(values, side)

    def finish(self) -> None:
        """Forget the state of a run that has ended well."""
        if self.writer:
            shutil.rmtree(self.directory)
