"""data/, metrics/ -> a folder that loads by itself: model, tokenizer, parameters, numbers, digests, a README."""

import shutil
from pathlib import Path
from typing import Any

import vqlcmd
from vqlcmd import generator
from vqlcmd.params import load_params
from vqlcmd.reports import revision
from vqlcmd.reports.revision import WORKSPACE, Revision
from vqlcmd.reports.stale import stale
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts import exported
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.sharing.card import card

NUMBERS = ("evaluate.json", "bound.json", "protocol.json", "vqgan.json", "train.json", "train.tsv")
PICTURES = ("grid.png", "reconstructions.png")
"""Of metrics/, what goes along."""


def export(folder: Path, data: Path, *, with_metrics: bool) -> None:
    """Write `folder`, whole or not at all: `vqlcmd.load(folder)` then samples what it does from `data`.

    With metrics it is of a whole run, its model is what `weights` in params.yaml names, and DataError is raised, by the
    lines of `vqlcmd report`, where parameters, data and metrics do not belong together. ConfigError where there is such
    a folder already.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: name another folder, or delete it")
    if with_metrics and data != paths.VQGAN.parent:
        raise ConfigError(f"metrics/ is not of the model in {data}: add --no-metrics")
    run = _run() if with_metrics else None
    # The numbers are of these, and `weights` may be another average or an earlier one.
    source = paths.weights(load_params().weights) if with_metrics else data / exported.MODEL
    side = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(side, ignore_errors=True)
    try:
        # Bytes, no links: what is in DVC's cache stays there.
        _copy(source, side / exported.MODEL)
        _copy(data / exported.TOKENIZER, side / exported.TOKENIZER)
        model = generator.load(side, "cpu")
        if run:
            _copy(Path("params.yaml"), side / "params.yaml")
            for name in (*NUMBERS, *PICTURES):
                _copy(paths.METRICS / name, side / paths.METRICS / name)
        about = _about(model)
        (side / "README.md").write_text(card(about, run), encoding="utf-8")
        exported.describe(side, about)
        if folder.exists():
            folder.rmdir()
        side.replace(folder)
    finally:
        shutil.rmtree(side, ignore_errors=True)


def _run() -> Revision:
    """What lies here, where all of it belongs together."""
    for line in stale():
        raise DataError(f"{line} (`vqlcmd report` lists all; --no-metrics exports model and tokenizer alone)")
    missing = [name for name in (*NUMBERS, *PICTURES) if not (paths.METRICS / name).is_file()]
    if missing:
        raise DataError(f"{paths.METRICS / missing[0]} is missing: `dvc repro` makes it, or add --no-metrics")
    return revision.read(WORKSPACE)


def _about(model: generator.Generator) -> dict[str, Any]:
    said = model.about
    return {
        "vqlcmd": vqlcmd.__version__,
        "method": said["params"]["method"],
        "parameters": sum(parameter.numel() for parameter in model.method.parameters()),
        "classes": list(model.class_names),
        "images": said.get("images", {}),
        "grid": list(model.grid),
        "codes": said["codes"],
        # What `sample` does unless told: the model's own file says the same.
        "sampling": said["sampling"],
        "seed": said["params"]["seed"],
        "resumed_across": said.get("resumed_across", []),
    }


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise DataError(f"{source} is missing: `dvc repro` makes it")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
