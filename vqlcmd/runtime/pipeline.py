"""dvc.yaml as data: the files and parameters that a stage's result depends on and no stage makes."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import vqlcmd
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.yaml_file import read_yaml

ROOT = Path(vqlcmd.__file__).parent.parent
"""Of the checkout whose code is running: an experiment's copy has its own."""


def digests(values: Mapping[str, Any], stages: Iterable[str] | None = None, root: Path = ROOT) -> dict[str, str]:
    """{file: SHA-256} of the code and manifests that dvc.yaml lists for `stages` (default: all), folders file by file.

    `values` fills in ${...}: the parameters of params.yaml. What does not exist is left out.
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


def parameters(values: Mapping[str, Any], root: Path = ROOT) -> dict[str, Any]:
    """{dotted key: value} of those parameters in `values` that dvc.yaml lists for a stage or fills in.

    Of the rest no result depends: how often a state is saved, who logs.
    """
    text = (root / "dvc.yaml").read_text(encoding="utf-8")
    keys = {key for stage in read_yaml(root / "dvc.yaml")["stages"].values() for key in stage.get("params", [])}
    return {key: _at(values, key) for key in sorted(keys | set(re.findall(r"\$\{(\w+)\}", text)))}


def _made(stage: Mapping[str, Any]) -> list[str]:
    """Paths that a stage writes."""
    listed = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in listed]


def _at(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        found = found[part]
    return found


def _files(path: Path) -> Iterable[Path]:
    return path.rglob("*.py") if path.is_dir() else [path] if path.is_file() else []
