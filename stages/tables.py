"""tables/NAME.yaml -> a DVC experiment per row and seed -> tables/results/NAME.json -> Markdown and pictures.

An experiment is named by the digest of its parameters and of the code it runs, so that rows which tables share run
once, a table that was interrupted goes on, and results of other code are run again.
"""

import datetime
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stages import paths
from vqlcmd.checkpoint import fingerprint
from vqlcmd.config import Params
from vqlcmd.errors import ConfigError, DataError
from vqlcmd.files import sha256, write_json
from vqlcmd.tables import Run, Table, differences, markdown, metric_of, read_table, runs
from vqlcmd.yamlfile import read_yaml

TABLES = Path("tables")
RESULTS = TABLES / "results"
MACHINE_MADE = ("metrics/", "dvc.lock", "tables/results/")
CURVES = ("step", "embedding_norm", "embedding_distance", "embedding_rank", "decodable_0")
POLL_SECONDS = 5.0


def names() -> list[str]:
    """The tables there are."""
    return sorted(path.stem for path in TABLES.glob("*.yaml"))


def load(name: str) -> Table:
    """A table by name. ConfigError names the others."""
    if name not in names():
        raise ConfigError(f"there is no table {name!r}: choose one of {', '.join(names())}")
    return read_table(TABLES / f"{name}.yaml")


def base_values(preset: str | None) -> dict[str, Any]:
    """What a table's rows are laid over: params.yaml, or a preset."""
    path = Path("presets") / f"{preset}.yaml" if preset else Path("params.yaml")
    return read_yaml(path)


def run_table(name: str, seeds: list[int], jobs: int, preset: str | None, say: Callable[[str], None] = print) -> bool:
    """Run what is missing of a table; whether all rows ended well. ConfigError where Git has uncommitted changes."""
    table, base = load(name), base_values(preset)
    wanted = {_identity(run.params): run for run in runs(table, base, seeds)}
    _refuse_changes()
    book = _Book(name, base, preset)
    missing = {}
    for identity, run in wanted.items():
        if not (book.has(run, identity) or book.borrow(run, identity) or book.collect(run, identity)):
            missing[identity] = run
    say(f"{name}: {len(wanted)} experiments, {len(wanted) - len(missing)} of them done")
    queue = _Queue(preset, jobs, say)
    failed: list[str] = []
    try:
        for wave in _waves(missing):
            failed += queue.run(wave, book)
    except KeyboardInterrupt:
        queue.abandon()
        raise
    for problem in failed:
        say(problem)
    return not failed


def show_table(name: str, preset: str | None) -> str:
    """The table as Markdown, from tables/results/NAME.json."""
    table, base = load(name), base_values(preset)
    rows = _Book(name, base, preset).rows()
    found: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["row"], row["value"]), []).append(row["metrics"])
    commits = sorted({row["commit"][:8] for row in rows})
    scale = f"presets/{preset}.yaml" if preset else "params.yaml"
    return f"{markdown(table, found)}\n\nScale: {scale}. Commits: {', '.join(commits) or 'none, nothing has run'}."


def curves(name: str, preset: str | None, seed: int) -> dict[str, dict[str, Any]]:
    """Of each row that has run: the curves of its embeddings, and where its model is."""
    rows = _Book(name, base_values(preset), preset).rows()
    found = {row["row"]: row for row in rows if row["seed"] == seed and row["value"] == rows[0]["value"]}
    if not found:
        raise DataError(f"no row of {name} has run with seed {seed}: `vqlcmd table run {name}`")
    return found


def fetch_model(revision: str, folder: Path) -> Path:
    """The model file of an experiment, out of DVC's cache. DataError in a clone that did not run it."""
    target = folder / f"{revision[:12]}.safetensors"
    if not target.exists():
        done = _call(["dvc", "get", ".", str(paths.MODEL), "--rev", revision, "-o", str(target)], check=False)
        if done.returncode:
            raise DataError(f"the model of {revision[:8]} is not in this clone's cache: run the table here")
    return target


def _identity(params: Params) -> str:
    """Of everything that decides an experiment's result: parameters, code, and the manifest of the images."""
    stages = read_yaml(Path("dvc.yaml"))["stages"].values()
    given = {"dataset": params.dataset, "method": params.method}
    deps = {re.sub(r"\$\{(\w+)\}", lambda found: given[found[1]], dep) for stage in stages for dep in stage["deps"]}
    outs = tuple(out for stage in stages for out in stage.get("outs", []))
    files = {dep: sha256(Path(dep)) for dep in sorted(deps) if not dep.startswith(outs)}
    return fingerprint(params.model_dump(mode="json"), files)


def _training(params: Params) -> str:
    """Of what decides a model, apart from its tokens."""
    return fingerprint(params.model_part().model_dump(mode="json"))


def _waves(missing: dict[str, Run]) -> list[dict[str, Run]]:
    """First one experiment of each model, then those that only sample from it: no model is trained twice at once."""
    first: dict[str, str] = {}
    for identity, run in missing.items():
        first.setdefault(_training(run.params), identity)
    waves = [{i: run for i, run in missing.items() if i in first.values()}]
    waves.append({i: run for i, run in missing.items() if i not in first.values()})
    return [wave for wave in waves if wave]


def _refuse_changes() -> None:
    status = _call(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.splitlines()
    changed = [line[3:] for line in status if not line[3:].startswith(MACHINE_MADE)]
    if changed:
        raise ConfigError(
            f"{changed[0]} has changes that are not committed, and every row would inherit them: commit or stash them"
        )


def _experiments() -> dict[str, str]:
    """{identity: commit} of the experiments in this clone that a table ran."""
    listed = _call(["git", "for-each-ref", "refs/exps", "--format=%(refname) %(objectname)"]).stdout.split()
    return {ref.rsplit("-", 1)[-1]: commit for ref, commit in zip(listed[::2], listed[1::2], strict=True)}


def _call(command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise DataError(f"`{' '.join(command[:4])}` failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    return done


class _Book:
    """tables/results/NAME.json: a list of finished experiments, sorted, each with all it takes to print it."""

    def __init__(self, name: str, base: dict[str, Any], preset: str | None):
        self.path, self.preset = RESULTS / f"{name}.json", preset
        self.base = fingerprint({key: value for key, value in base.items() if key != "seed"})

    def rows(self) -> list[dict[str, Any]]:
        """Those at this scale."""
        return [row for row in _read(self.path) if row["base"] == self.base]

    def has(self, run: Run, identity: str) -> bool:
        return any(row["identity"] == identity and row["row"] == run.row for row in self.rows())

    def borrow(self, run: Run, identity: str) -> bool:
        """Take over what another table ran."""
        others = (row for path in sorted(RESULTS.glob("*.json")) for row in _read(path))
        same = next((row for row in others if row["identity"] == identity), None)
        if same is not None:
            self._write(run, {key: same[key] for key in same if key not in ("row", "value", "base")})
        return same is not None

    def collect(self, run: Run, identity: str) -> bool:
        """Take over an experiment that has ended well."""
        revision = _experiments().get(identity)
        if revision is None:
            return False
        shown = {
            file: _call(["git", "show", f"{revision}:metrics/{file}"]).stdout
            for file in ("evaluate.json", "bound.json", "train.tsv")
        }
        header, *lines = (line.split("\t") for line in shown["train.tsv"].splitlines())
        columns = {name: [line[index] for line in lines] for index, name in enumerate(header)}
        last = {name: float(values[-1]) for name, values in columns.items() if name.startswith("embedding") and values}
        result = {
            "identity": identity,
            "preset": self.preset,
            "seed": run.seed,
            "overrides": run.overrides,
            "metrics": {**last, **json.loads(shown["bound.json"]), **json.loads(shown["evaluate.json"])},
            "curves": {name: [float(value) for value in columns[name]] for name in CURVES if name in columns},
            "revision": revision,
            "commit": _call(["git", "rev-parse", f"{revision}^"]).stdout.strip(),
            "finished": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        result["metrics"]["steps"] = run.params.sample_steps
        self._write(run, result)
        return True

    def _write(self, run: Run, result: dict[str, Any]) -> None:
        entry = {"row": run.row, "value": run.value, "base": self.base, **result}
        same = ("row", "value", "base", "seed")
        rows = [row for row in _read(self.path) if any(row[key] != entry[key] for key in same)]
        rows.append(entry)
        write_json(self.path, {"rows": sorted(rows, key=lambda row: json.dumps([row[key] for key in same]))})


def _read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


class _Queue:
    """DVC's queue, as many workers as `jobs`, each with its share of the cores."""

    def __init__(self, preset: str | None, jobs: int, say: Callable[[str], None]):
        workspace = base_values(None)
        self.preset = differences(workspace, base_values(preset)) if preset else {}
        self.jobs, self.say, self.waiting = jobs, say, dict[str, Run]()

    def run(self, wave: dict[str, Run], book: _Book) -> list[str]:
        """Queue experiments and wait for them; what to say of those that failed."""
        self._remove(self._tasks("Failed") & {_name(run, identity) for identity, run in wave.items()})
        queued = self._tasks("Queued", "Running")
        for identity, run in wave.items():
            if _name(run, identity) not in queued:
                self._enqueue(_name(run, identity), run)
        self.waiting, failed, started = dict(wave), [], time.monotonic()
        self._start()
        while self.waiting:
            time.sleep(POLL_SECONDS)
            done = [identity for identity in _experiments() if identity in self.waiting]
            for identity in done:
                run = self.waiting.pop(identity)
                book.collect(run, identity)
                self._report(run, book, len(wave), time.monotonic() - started)
            broken = self._tasks("Failed")
            for identity, run in list(self.waiting.items()):
                if (name := _name(run, identity)) in broken:
                    del self.waiting[identity]
                    failed.append(f"{run.row}, seed {run.seed} failed; `dvc queue logs {name}` says why")
            if self.waiting and not done and not self._tasks("Running", "Queued"):
                # A row that failed to start, or that somebody removed.
                gone = ", ".join(run.row for run in self.waiting.values())
                failed.append(f"{gone}: no longer in DVC's queue; the same command queues them again")
                break
        return failed

    def abandon(self) -> None:
        """Stop the workers and forget what has not run: the state of interrupted training stays."""
        self.say("stopping: the same command goes on from here")
        _call(["dvc", "queue", "stop", "--kill"], check=False)
        self._remove({_name(run, identity) for identity, run in self.waiting.items()})

    def _enqueue(self, name: str, run: Run) -> None:
        overrides = {**self.preset, **run.overrides}
        options = [part for key, value in overrides.items() for part in ("-S", f"{key}={_hydra(value)}")]
        _call(["dvc", "exp", "run", "--queue", "--name", name, *options])

    def _start(self) -> None:
        threads = os.environ.get("OMP_NUM_THREADS") or str(max((os.cpu_count() or 1) // self.jobs, 1))
        # The workers outlive this command and would keep its pipes open.
        subprocess.run(
            ["dvc", "queue", "start", "--jobs", str(self.jobs)],
            env={**os.environ, "OMP_NUM_THREADS": threads},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )

    def _tasks(self, *states: str) -> set[str]:
        lines = _call(["dvc", "queue", "status"]).stdout.splitlines()
        return {line.split()[1] for line in lines if line.split()[-1:] and line.split()[-1] in states}

    def _remove(self, tasks: Iterable[str]) -> None:
        tasks = sorted(tasks)
        if tasks:
            _call(["dvc", "queue", "remove", *tasks], check=False)

    def _report(self, run: Run, book: _Book, total: int, seconds: float) -> None:
        same = {"row": run.row, "seed": run.seed, "value": run.value}
        metrics = next(row["metrics"] for row in book.rows() if all(row[key] == same[key] for key in same))
        done = total - len(self.waiting)
        value = "" if run.value is None else f", {run.value}"
        left = seconds / done * len(self.waiting) / 60
        self.say(
            f"{done}/{total}  {run.row}{value}, seed {run.seed}: fid {metric_of(metrics, 'fid'):.4g}, "
            f"precision {metric_of(metrics, 'precision') or 0:.3g}, recall {metric_of(metrics, 'recall') or 0:.3g} "
            f"({seconds / 60:.0f} min, about {left:.0f} left)"
        )


def _name(run: Run, identity: str) -> str:
    return f"{re.sub('[^a-z0-9]+', '-', run.row.lower()).strip('-')}-s{run.seed}-{identity}"


def _hydra(value: Any) -> str:
    """A value as `-S KEY=VALUE` reads it."""
    return "null" if value is None else json.dumps(value) if isinstance(value, list | bool) else str(value)
