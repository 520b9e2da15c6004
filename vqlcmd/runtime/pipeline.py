"""dvc.yaml as data: the files and parameters that a stage's result depends on and that no stage makes."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import vqlcmd
from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.yaml_file import read_yaml

ROOT = Path(vqlcmd.__file__).parent.parent
"""The checkout whose code is running; an experiment's copy is one of its own."""
COPIES = "/.dvc/tmp/exps/"
"""A part of the path of every such copy, made by `dvc exp run --temp` or by DVC's queue."""
LONG = "train"
"""A stage whose numbers stay until it starts, since DVC runs a stage again if only its numbers are missing."""


def digests(values: Mapping[str, Any], stages: Iterable[str] | None = None, root: Path = ROOT) -> dict[str, str]:
    """{file: SHA-256} of the code and manifests that dvc.yaml lists for `stages` (default: all), folders file by file.

    `values` are the parameters of params.yaml, and fill in ${...}. Files that do not exist are left out.
    """
    described = read_yaml(root / "dvc.yaml")["stages"]
    outs = tuple(out for stage in described.values() for out in _made(stage))
    deps = {
        re.sub(r"\$\{(\w+)\}", lambda found: str(values[found[1]]), dep)
        for stage in (described if stages is None else stages)
        for dep in described[stage]["deps"]
    }
    files = {file for dep in deps if not dep.startswith(outs) for file in _files(root / dep)}
    return {file.relative_to(root).as_posix(): sha256(file) for file in sorted(files)}


def code(values: Mapping[str, Any], stage: str, root: Path = ROOT) -> dict[str, str]:
    """The Python files among `digests` of one stage."""
    return {name: digest for name, digest in digests(values, [stage], root).items() if name.endswith(".py")}


def parameters(values: Mapping[str, Any], root: Path = ROOT, stages: Iterable[str] | None = None) -> dict[str, Any]:
    """{dotted key: value} of the parameters in `values` that dvc.yaml lists for `stages` (default: all) or fills in.

    No result depends on the others, such as how often a state is saved, or the logger.
    """
    described = read_yaml(root / "dvc.yaml")["stages"]
    chosen = {name: described[name] for name in (described if stages is None else stages)}
    keys = {key for stage in chosen.values() for key in stage.get("params", [])}
    text = (root / "dvc.yaml").read_text(encoding="utf-8") if stages is None else json.dumps(chosen)
    return {key: _at(values, key) for key in sorted(keys | set(re.findall(r"\$\{(\w+)\}", text)))}


def with_needed(stages: Iterable[str], root: Path = ROOT) -> list[str]:
    """These stages and those whose outputs they need, in the order of dvc.yaml.

    Raises ConfigError for a stage that dvc.yaml does not have.
    """
    described = read_yaml(root / "dvc.yaml")["stages"]
    wanted = set(stages)
    if unknown := sorted(wanted - described.keys()):
        raise ConfigError(f"dvc.yaml has no stage {unknown[0]}: choose from {', '.join(described)}")
    while added := {
        name
        for name, stage in described.items()
        if name not in wanted and any(out in described[each]["deps"] for each in wanted for out in _made(stage))
    }:
        wanted |= added
    return [name for name in described if name in wanted]


def forget_later_metrics(stage: str, root: Path) -> None:
    """In an experiment's copy of the checkout, removes what stages after `stage` left in metrics/.

    `stage` is as in launcher.main. Until those stages have run, their metrics are those of the commit that the
    experiment started from, and `dvc exp show` would show them for the running experiment. In the checkout itself
    nothing is removed: there, `vqlcmd report` says what is older.
    """
    if COPIES not in f"{root.resolve().as_posix()}/":
        return
    described = read_yaml(root / "dvc.yaml")["stages"]
    made = {out for about in described.values() if about["cmd"] == f"python -m stages.{stage}" for out in _made(about)}
    later: dict[str, list[str]] = {}
    while added := {
        name: _made(about)
        for name, about in described.items()
        if name not in later and any(dep in made for dep in about["deps"])
    }:
        later |= added
        made |= {out for outs in added.values() for out in outs}
    for out in (out for name, outs in later.items() for out in outs if name != LONG):
        if out.startswith(f"{paths.METRICS}/"):
            (root / out).unlink(missing_ok=True)


def _made(stage: Mapping[str, Any]) -> list[str]:
    """The paths that a stage writes."""
    listed = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


def _at(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        found = found[part]
    return found


def _files(path: Path) -> Iterable[Path]:
    return path.rglob("*.py") if path.is_dir() else [path] if path.is_file() else []
