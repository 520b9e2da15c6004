"""Resumable state, whole or absent, of one configuration; and finished models that describe themselves."""

import fcntl
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, TextIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from vqlcmd.errors import DataError
from vqlcmd.files import whole


def fingerprint(*parts: Any) -> str:
    """16 hex digits that name a configuration: equal parts, equal name. Parts are JSON values or bytes."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:16]


def sources() -> bytes:
    """Digest of this package's code: state written by other code is not resumed."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
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
                    f"{self.directory} is in use by process {owner}, which runs the same parameters: wait for it or stop it"
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
            with whole(self._file) as side:
                torch.save(values, side)

    def finish(self) -> None:
        """Forget the state of a run that has ended well."""
        if self.writer:
            shutil.rmtree(self.directory)


def save_model(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """One safetensors file; `about` goes into its header as JSON."""
    with whole(path) as side:
        # One key: safetensors writes several in an order that changes from run to run.
        metadata = {"about": json.dumps(about, sort_keys=True)}
        side.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata))


def load_model(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and `about` of a file that save_model wrote. DataError when it is missing or damaged."""
    if not path.is_file():
        raise DataError(f"{path} is missing: `dvc repro` makes it, `dvc pull` fetches it")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("about", "null"))
        tensors = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path} is damaged ({error}): delete it and run `dvc repro`") from None
    if about is None:
        raise DataError(f"{path} was not written by this project: no description in its header")
    return tensors, about
