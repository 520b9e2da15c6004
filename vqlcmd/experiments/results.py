"""tables/results/NAME.json: what the experiments of a table measured, so that results outlive DVC's local refs."""

import datetime
import fcntl
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vqlcmd.experiments.table import Run, differences
from vqlcmd.runtime import paths, pipeline
from vqlcmd.runtime.artefacts.json_file import parse_json, read_json
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import write_json
from vqlcmd.runtime.resume import fingerprint

RESULTS = Path("tables/results")
_AGAIN = "`dvc exp remove {}`, and run its row again"
CURVES = ("step", "embedding_", "decodable_0", "ce_", "table_grad_")
"""Prefixes of the columns of train.tsv that are stored."""


class ResultsFile:
    """tables/results/NAME.json: finished experiments, with all that printing them takes, and the scales they ran at.

    A scale is all parameters but the seed, before a row overrides them. Two scales are the same if they agree on the
    parameters that both have. If only `stages` are run, the others' parameters are no part of it.
    """

    def __init__(self, name: str, base: dict[str, Any], preset: str | None, stages: Sequence[str] = ()):
        self.path, self.preset, self.stages = RESULTS / f"{name}.json", preset, stages
        read = pipeline.parameters(base, Path(), pipeline.with_needed(stages, Path())) if stages else base
        self.scale = {key: value for key, value in differences({}, read).items() if key != "seed"}

    def rows(self) -> list[dict[str, Any]]:
        """The stored experiments at this scale."""
        stored = _read(self.path)
        return [row for row in stored["rows"] if self._same(stored["scales"][row["scale"]])]

    def _same(self, scale: dict[str, Any]) -> bool:
        return all(self.scale[key] == value for key, value in scale.items() if key in self.scale)

    def has(self, run: Run, identity: str) -> bool:
        return any(row["identity"] == identity and row["row"] == run.row for row in self.rows())

    def reuse(self, run: Run, identity: str) -> bool:
        """Copies the result of the same experiment from any table; returns whether there is one."""
        others = (row for path in sorted(RESULTS.glob("*.json")) for row in _read(path)["rows"])
        same = next((row for row in others if row["identity"] == identity), None)
        if same is not None:
            self._write(run, {key: same[key] for key in same if key not in ("row", "value", "scale")})
        return same is not None

    def collect(self, run: Run, identity: str) -> bool:
        """Stores the result of an experiment that has ended well; returns whether there is one."""
        revision = experiments().get(identity)
        if revision is None:
            return False
        if self.stages:
            # The files of other stages in metrics/ are those of the commit that the experiment started from.
            numbers = [_numbers(_file(revision, f"{stage}.json"), f"{stage}.json", revision) for stage in self.stages]
            metrics, curves = {key: value for each in numbers for key, value in each.items()}, {}
        else:
            metrics, curves = _of_the_pipeline(revision)
        result = {
            "identity": identity,
            "preset": self.preset,
            "seed": run.seed,
            "overrides": run.overrides,
            "metrics": metrics,
            "curves": curves,
            "revision": revision,
            "commit": call(["git", "rev-parse", f"{revision}^"]).stdout.strip(),
            "finished": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        self._write(run, result)
        return True

    def _write(self, run: Run, result: dict[str, Any]) -> None:
        name = fingerprint(self.scale)
        entry = {"row": run.row, "value": run.value, "scale": name, **result}
        stored, same = _read(self.path), ("row", "value", "seed")
        scales, rows = stored["scales"], stored["rows"]
        kept = [row for row in rows if any(row[k] != entry[k] for k in same) or not self._same(scales[row["scale"]])]
        kept = sorted([*kept, entry], key=lambda row: json.dumps([row[key] for key in (*same, "scale")]))
        scales = {key: scale for key, scale in scales.items() if any(row["scale"] == key for row in kept)}
        write_json(self.path, {"scales": scales | {name: self.scale}, "rows": kept})


@contextmanager
def alone() -> Iterator[None]:
    """Context that one command at a time can be in. Raises ConfigError if another command is.

    DVC stashes the files of a checkout while it queues a row, so two commands would lose each other's results.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = os.open(RESULTS, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise ConfigError(
            "a table is running in this clone: wait for it, or run another in a clone of its own"
        ) from None
    try:
        yield
    finally:
        os.close(folder)


def _of_the_pipeline(revision: str) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """The metrics of an experiment, with their protocol and the last values of its curves; and the curves."""
    bound, evaluated = (_numbers(_file(revision, file), file, revision) for file in ("bound.json", "evaluate.json"))
    # Experiments of an earlier version have their protocol among the metrics.
    apart = call(["git", "show", f"{revision}:metrics/protocol.json"], check=False)
    protocol = {"protocol": _parsed(apart.stdout, "protocol.json", revision)} if apart.returncode == 0 else {}
    header, *lines = (line.split("\t") for line in _file(revision, "train.tsv").splitlines())
    columns = {name: [line[index] for line in lines] for index, name in enumerate(header)}
    last = {name: float(values[-1]) for name, values in columns.items() if name.startswith(CURVES[1:]) and values}
    curves = {name: [float(value) for value in values] for name, values in columns.items() if name.startswith(CURVES)}
    return {**last, **bound, **evaluated, **protocol}, curves


def _file(revision: str, name: str) -> str:
    return call(["git", "show", f"{revision}:metrics/{name}"]).stdout


def _parsed(text: str, file: str, revision: str) -> Any:
    return parse_json(text, f"metrics/{file} of the experiment {revision[:8]}", _AGAIN.format(revision[:8]))


def _numbers(text: str, file: str, revision: str) -> dict[str, Any]:
    found = _parsed(text, file, revision)
    if not isinstance(found, dict):
        raise DataError(f"metrics/{file} of the experiment {revision[:8]} has no names: {_AGAIN.format(revision[:8])}")
    return found


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"scales": {}, "rows": []}
    found = read_json(path, "`git checkout` brings it back")
    try:
        revisions = [row["revision"] for row in found["rows"] if found["scales"][row["scale"]] is not None]
        named = all(re.fullmatch("[0-9a-f]{40}", revision) for revision in revisions)
    except (KeyError, TypeError):
        named = False
    if not named:
        raise DataError(f"{path} is no file of results by this project: `git checkout` brings it back")
    return found


def experiments() -> dict[str, str]:
    """{identity: commit} of the experiments in this clone that were run for a table."""
    listed = call(["git", "for-each-ref", "refs/exps", "--format=%(refname) %(objectname)"]).stdout.split()
    return {ref.rsplit("-", 1)[-1]: commit for ref, commit in zip(listed[::2], listed[1::2], strict=True)}


def fetched(revision: str, target: Path) -> bool:
    """Copies the model file of an experiment out of DVC's cache; returns whether the cache has it."""
    side = target.with_suffix(".part")
    side.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    done = call(["dvc", "get", ".", str(paths.MODEL), "--rev", revision, "-o", str(side)], check=False)
    if done.returncode == 0:
        os.replace(side, target)
    return done.returncode == 0


def call(command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise DataError(f"`{' '.join(command[:4])}` failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return done
