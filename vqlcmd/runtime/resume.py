"""State of unfinished runs: whole or absent, with one owner, and never used by a run that it does not belong to.

.state/STAGE/NAME/ has the last two states of a run, and run.json, which says what made them. NAME stands for the run's
parameters and inputs, but not for its code: a run whose code was edited finds its state, and says what changed.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO

import torch

from vqlcmd.runtime.artefacts.changes import changed_files, differences, plain
from vqlcmd.runtime.artefacts.json_file import read_json
from vqlcmd.runtime.artefacts.write_errors import writing
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import atomic_write, sha256

SWITCH = "VQLCMD_RESUME"
KEPT = 2
_OWN = {"lock", "run.json"}


def state_root() -> Path:
    """Where unfinished runs keep their state: $VQLCMD_STATE, else .state/ of the main checkout, not an experiment's."""
    return Path(os.environ.get("VQLCMD_STATE") or Path(os.environ.get("DVC_ROOT", ".")) / ".state")


def fingerprint(*parts: Any) -> str:
    """16 hexadecimal digits that name a configuration: equal parts, equal name. Parts are JSON values or bytes."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode()
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Run:
    """What decides a stage's result: parameters, digests of its inputs, and {file: digest} of the code in dvc.yaml."""

    stage: str
    settings: dict[str, Any]
    inputs: Any
    code: dict[str, str]

    @property
    def name(self) -> str:
        """The name of the folder with its state: a fingerprint of parameters and inputs."""
        return fingerprint(self.settings, self.inputs)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits for parameters, inputs and code."""
        return fingerprint(self.settings, self.inputs, self.code)


class State:
    """The folder with the state of one unfinished run. Inside `with`, a writer holds it alone; others only read.

    With a `run`, entering compares it with the run that made the state. Raises DataError if another process holds the
    folder, or if the state comes from other code and $VQLCMD_RESUME does not say what to do.
    """

    def __init__(self, directory: Path, *, writer: bool = True, run: Run | None = None):
        self.directory, self.writer, self.run = directory, writer, run
        self.edits: list[dict[str, Any]] = []
        """Changes of code or parameters across which the run was resumed, oldest first."""
        self._lock: TextIO | None = None

    @classmethod
    def of(cls, run: Run, *, writer: bool = True) -> "State":
        """The folder of a run, under `state_root`."""
        return cls(state_root() / run.stage / run.name, writer=writer, run=run)

    def __enter__(self) -> "State":
        if self.writer:
            self._lock = _lock(self.directory)
            for left in self.directory.glob(".*.pt"):
                left.unlink()
            try:
                if self.run is not None:
                    self._settle(self.run)
            except BaseException:
                self._lock.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def load(self) -> dict[str, Any] | None:
        """What was saved last, with tensors on the CPU; None for a fresh start.

        If a file is damaged, the one before it is used. Raises DataError if all of them are damaged.
        """
        saved = self._saved()
        for path in reversed(saved):
            if sha256(path).startswith(path.stem.partition("-")[2]):
                return torch.load(path, map_location="cpu", weights_only=True)
            if self.writer:
                print(f"{path} is damaged: the state before it is used", file=sys.stderr)
        if saved:
            raise DataError(f"{self.directory}: every state in it is damaged; {SWITCH}=new begins anew")
        return None

    def save(self, values: dict[str, Any]) -> None:
        """Saves a state, whole or not at all: tensors, numbers, strings, and lists and dicts of them.

        The name of the file ends in its digest; the last two files are kept. A reader saves nothing.
        """
        if not self.writer:
            return
        before = self._saved()
        number = int(before[-1].stem.partition("-")[0]) + 1 if before else 1
        side = self.directory / f".{os.getpid()}.pt"
        try:
            with writing(self.directory):
                torch.save(values, side)
                with side.open("rb") as written:
                    os.fsync(written.fileno())
            side.replace(self.directory / f"{number:06}-{sha256(side)[:16]}.pt")
        finally:
            side.unlink(missing_ok=True)
        for path in self._saved()[:-KEPT]:
            path.unlink()

    def finish(self) -> None:
        """Deletes the state of a run that has ended well."""
        if self.writer:
            shutil.rmtree(self.directory)

    def _saved(self) -> list[Path]:
        return sorted(self.directory.glob("[0-9]*-*.pt"))

    def _settle(self, run: Run) -> None:
        """Makes the folder that of `run`: its state is continued, if asked across an edit, taken over or empty."""
        asked = _asked(run.stage)
        about = _about(self.directory)
        if about is not None and _unfinished(self.directory):
            self.edits = about["edits"]
            changed = changed_files(about["run"]["code"], run.code)
            if asked == "new":
                self._set_aside()
            elif changed and asked == self.directory.name:
                self._record(about["run"], run)
            elif changed:
                raise DataError(
                    f"{self.directory} holds an unfinished run, but its code has changed since: {', '.join(changed)}. "
                    f"{SWITCH}={run.stage}/{run.name} goes on with it all the same, and the result says so; "
                    f"{SWITCH}=new begins anew"
                )
        elif asked not in (None, "new", self.directory.name):
            self._take_over(self.directory.with_name(asked), run)
        else:
            _mention(self.directory, run)
        with atomic_write(self.directory / "run.json") as side:
            side.write_text(json.dumps({"run": asdict(run), "edits": self.edits}), encoding="utf-8")

    def _record(self, before: dict[str, Any], run: Run) -> None:
        self.edits = [
            *self.edits,
            {
                "from": Run(**before).digest,
                "to": run.digest,
                "files": changed_files(before["code"], run.code),
                "parameters": differences(before["settings"], run.settings),
            },
        ]

    def _take_over(self, other: Path, run: Run) -> None:
        about = _about(other)
        if about is None or not _unfinished(other):
            raise ConfigError(
                f"{SWITCH}={run.stage}/{other.name} names no unfinished run in {other.parent}: correct it"
            )
        if about["run"]["inputs"] != plain(run.inputs):
            raise DataError(f"{other} was made from other inputs than this run has: {SWITCH}=new begins anew")
        with _lock(other):
            self.edits = about["edits"]
            self._record(about["run"], run)
            _move(other, self.directory)
            shutil.rmtree(other)

    def _set_aside(self) -> None:
        number = 1
        while (aside := self.directory.with_name(f"{self.directory.name}.{number}")).exists():
            number += 1
        aside.mkdir()
        _move(self.directory, aside)
        shutil.copy(self.directory / "run.json", aside)
        self.edits = []
        print(f"the unfinished run is kept in {aside}", file=sys.stderr)


def _lock(directory: Path) -> TextIO:
    directory.mkdir(parents=True, exist_ok=True)
    lock = (directory / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        owner = lock.read() or "unknown"
        lock.close()
        raise DataError(
            f"{directory} is in use by process {owner}, with the same parameters: wait for it or stop it"
        ) from None
    with writing(directory / "lock"):
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock


def _asked(stage: str) -> str | None:
    """What $VQLCMD_RESUME says to this stage: `new`, the name of a folder, or None."""
    text = os.environ.get(SWITCH, "")
    if text in ("", "new"):
        return text or None
    named, _, name = text.partition("/")
    if not name or "/" in name or name.startswith("."):
        raise ConfigError(f"{SWITCH} is {text!r}, but must be `new`, or STAGE/NAME as in .state: correct or unset it")
    return name if named == stage else None


def _about(directory: Path) -> dict[str, Any] | None:
    path, remedy = directory / "run.json", f"delete {directory}, which begins anew"
    if not path.is_file():
        return None
    about = read_json(path, remedy)
    try:
        kinds = [type(about["run"][name]) for name in ("stage", "settings", "code")] + [type(about["edits"])]
    except (KeyError, TypeError):
        kinds = []
    if kinds != [str, dict, dict, list] or about["run"].keys() != {field.name for field in fields(Run)}:
        raise DataError(f"{path} is of another version: {remedy}")
    return about


def _unfinished(directory: Path) -> bool:
    return any(path.name not in _OWN for path in directory.iterdir())


def _move(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.name not in _OWN:
            path.replace(target / path.name)


def _mention(directory: Path, run: Run) -> None:
    """If a run with other parameters on the same inputs is unfinished, prints how to go on with it."""
    others = []
    for other in directory.parent.iterdir():
        try:
            about = _about(other) if other != directory and "." not in other.name else None
            if about and about["run"]["inputs"] == plain(run.inputs) and _unfinished(other) and not _held(other):
                others.append((differences(about["run"]["settings"], run.settings), other.name))
        except (DataError, OSError):  # Damaged, or just removed by another process: it is not needed here.
            continue
    if others:
        changes, name = min(others, key=lambda other: (len(other[0]), other[1]))
        shown = ", ".join(f"{key} {before} -> {after}" for key, (before, after) in changes.items())
        print(
            f"{run.stage}: begins at the start. An unfinished run is kept that differs in {shown}: "
            f"{SWITCH}={run.stage}/{name} goes on with it",
            file=sys.stderr,
        )


def _held(directory: Path) -> bool:
    # Opened but never created, since its owner may be removing the folder.
    with (directory / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
