"""What in metrics/ and data/ is older than the present parameters and data, one line each."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from vqlcmd.experiments.table import differences
from vqlcmd.images import manifest
from vqlcmd.params import Params, RunParams, load_params
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.artefacts.belongs import Artefact
from vqlcmd.runtime.artefacts.json_file import read_json
from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.safetensors_file import read_about
from vqlcmd.tokens.header import read_header

MADE_BY = {"evaluate": "evaluate.json", "bound": "bound.json", "figures": "the pictures"}
"""{stage: what it leaves in metrics/} for the stages that record what this was made from."""
HOW_IT_RUNS = ("batch_size", "save_every", "sample_every", "logger", "shard_images", "skip_broken")
"""Parameters, in whichever section, that change numbers by rounding at most."""
AT_MOST = 3


def stale() -> Iterator[str]:
    """Yields a line for each thing in metrics/ and data/ that was not made from the present data/ and params.yaml."""
    params = load_params()
    places: dict[str, Path] = {
        "tokenizer": paths.VQGAN,
        "tokens": paths.TOKENS,
        "model": paths.weights(params.weights),
        "samples": paths.SAMPLES,
        "reference": paths.REFERENCE,
    }
    if not any(path.exists() for path in places.values()):
        yield (
            "No run was made here: these are the numbers that were committed, of whoever committed them. `dvc repro` "
            "makes them here."
        )
        return
    missing = [str(path) for path in places.values() if not path.exists()]
    if missing:
        yield (
            f"{' and '.join(missing)}: not there, so a run was interrupted or is going on, and what needs it is of the "
            "run before. `dvc repro` goes on."
        )
    said = {name: _said(name, path) for name, path in places.items() if path.exists()}
    here = {name: getattr(belongs, name)(places[name], *about) for name, about in said.items()}
    for one, other in combinations(here.values(), 2):
        try:
            belongs.check_belong(one, other)
        except DataError as error:
            yield str(error)
    for name, about in said.items():
        changes = changed(*_parameters(name, about[0] if about else read_about(paths.VQGAN), params))
        if changes:
            yield f"{places[name]} is older than params.yaml: {changes}"
    for stage, file in MADE_BY.items():
        yield from older(stage, file, here, params)


def older(stage: str, file: str, here: Mapping[str, Artefact], params: RunParams) -> Iterator[str]:
    """Yields lines about what a stage left in metrics/ if it does not match the present artefacts and parameters."""
    path = paths.ORIGIN / f"{stage}.json"
    what = f"metrics/{file}" if file.endswith(".json") else f"metrics/*.png ({file})"
    if not path.is_file():
        yield f"{what} does not say what it was made from: it is of another version"
        return
    origin = read_json(path, "`dvc repro` makes it")
    if not isinstance(origin, list) or [type(each) for each in origin] != [dict, dict]:
        raise DataError(f"{path} is of another kind: `dvc repro` makes it")
    digests, then = origin
    other = [
        str(here[name].path) for name in here if digests.get(name, here[name].origin[name]) != here[name].origin[name]
    ]
    if other:
        yield f"{what} is not of the present {', '.join(other)}"
    changes = changed(then, params.model_dump(mode="json"))
    if changes:
        yield f"{what} is older than params.yaml: {changes}"


def _said(name: str, path: Path) -> tuple[Any, ...]:
    """What an artefact's file says about it, as arguments of the artefact's function in `belongs`."""
    if name == "tokenizer":
        return ()
    if name in ("tokens", "samples"):
        return (read_header(path),)
    return (read_about(path if path.is_file() else path / "features.safetensors"),)


def _parameters(name: str, about: Mapping[str, Any], params: Params) -> tuple[Any, Any]:
    """The parameters that an artefact says it was made from, and the same ones as they are now."""
    now = params.model_dump(mode="json")
    if name == "tokenizer":
        origin = about.get("provenance", {})
        settings = origin.get("settings", {})
        if settings and "fit" not in settings:
            # A given file, not a trained tokenizer. A digest set since in params.yaml is its own, or a change.
            return {"vqgan": settings | {"sha256": origin["sha256"]}}, {
                "vqgan": params.vqgan.taken() | {"sha256": params.vqgan.sha256 or origin["sha256"]}
            }
        return {"vqgan": settings}, now
    if name == "tokens":
        then = {
            "images": about["images"],
            "dataset": about["manifest"]["name"],
            "tokenize": {"holdout": about["holdout"]},
        }
        listed = paths.MANIFESTS / f"{params.dataset}.json"
        digest = manifest.digest(manifest.read(listed)) if listed.is_file() else None
        return then | {"manifest": about["manifest"]["digest"]}, now | {"manifest": digest}
    if name == "model":
        return about["params"], params.model_part().model_dump(mode="json")
    if name == "samples":
        wanted = ("seed", "weights", "sampler", "sample_steps", "guidance", "sample")
        return {key: about[key] for key in wanted if key in about}, now
    return {key: about["made_from"][key] for key in ("images", "reference") if key in about["made_from"]}, now


def changed(then: Any, now: Any) -> str:
    """The parameters in `then` whose values are different now, in a few words; "" if there are none."""
    current = differences({}, now)
    found = {
        key: (value, current.get(key))
        for key, value in differences({}, then).items()
        if key.rpartition(".")[2] not in HOW_IT_RUNS and current.get(key) != value
    }
    shown = [f"{key} {was!r:.40} -> {becomes!r:.40}" for key, (was, becomes) in list(found.items())[:AT_MOST]]
    return ", ".join(shown) + (f" and {len(found) - AT_MOST} more" if len(found) > AT_MOST else "")
