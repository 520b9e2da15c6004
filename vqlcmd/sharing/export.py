"""data/ and metrics/ -> a folder that loads by itself: model, tokenizer, parameters, numbers, digests, a README."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vqlcmd
from vqlcmd import generator, text_generator
from vqlcmd.params import load_run
from vqlcmd.reports import revision
from vqlcmd.reports import stale as images_stale
from vqlcmd.reports import text as text_reports
from vqlcmd.reports.revision import WORKSPACE, Revision
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts import exported
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.sharing.card import card
from vqlcmd.trained import Trained

NUMBERS = ("evaluate.json", "bound.json", "protocol.json", "train.json", "train.tsv")


@dataclass(frozen=True)
class Contents:
    """What is exported of a domain: `files`, and `metrics` from metrics/.

    `load` loads the exported folder, and `stale` yields a line for each thing that does not belong to the rest.
    """

    files: tuple[str, ...]
    metrics: tuple[str, ...]
    load: Callable[[Path, str], Trained]
    stale: Callable[[], Iterator[str]]


DOMAINS = {
    "images": Contents(
        exported.CHECKED,
        (*NUMBERS, "vqgan.json", "grid.png", "reconstructions.png"),
        generator.load,
        images_stale.stale,
    ),
    "text": Contents(
        exported.OF_TEXT, (*NUMBERS, "samples.json", "copied.json"), text_generator.load_text, text_reports.stale
    ),
}
"""{`domain` in params.yaml: what is exported of it}."""


def export(folder: Path, data: Path, *, with_metrics: bool) -> None:
    """Writes `folder`, whole or not at all: `vqlcmd.load(folder)` then samples like the model in `data`.

    A model of text is loaded by `vqlcmd.load_text(folder)`. With metrics, a whole run is exported: the model is the one
    that `weights` in params.yaml names, and if parameters, data and metrics do not belong together, DataError is raised
    with a line of `vqlcmd report`. Raises ConfigError if the folder exists and is not empty.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: name another folder, or delete it")
    if with_metrics and data != paths.VQGAN.parent:
        raise ConfigError(f"metrics/ is not of the model in {data}: add --no-metrics")
    domain = load_run().domain if with_metrics else "text" if (data / exported.VOCABULARY).is_file() else "images"
    if domain not in DOMAINS:
        raise ConfigError(f"a model of {domain} is not exported: only one of {' and '.join(DOMAINS)} is")
    of = DOMAINS[domain]
    run = _run(of) if with_metrics else None
    # The weights that the numbers belong to: `weights` may name another average, or an earlier step.
    source = paths.weights(load_run().weights) if with_metrics else data / exported.MODEL
    side = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(side, ignore_errors=True)
    try:
        # Copies, not links, so that DVC's cache is left alone.
        _copy(source, side / exported.MODEL)
        for name in of.files:
            if name != exported.MODEL:
                _copy(data / name, side / name)
        model = of.load(side, "cpu")
        if run:
            _copy(Path("params.yaml"), side / "params.yaml")
            for name in of.metrics:
                _copy(paths.METRICS / name, side / paths.METRICS / name)
        about = _about(domain, model)
        (side / "README.md").write_text(card(about, run), encoding="utf-8")
        exported.describe(side, about)
        if folder.exists():
            folder.rmdir()
        side.replace(folder)
    finally:
        shutil.rmtree(side, ignore_errors=True)


def _run(of: Contents) -> Revision:
    """The run in the working tree. Raises DataError if something is missing or does not belong to the rest."""
    for line in of.stale():
        raise DataError(f"{line} (`vqlcmd report` lists all; --no-metrics exports model and tokenizer alone)")
    missing = [name for name in of.metrics if not (paths.METRICS / name).is_file()]
    if missing:
        raise DataError(f"{paths.METRICS / missing[0]} is missing: `dvc repro` makes it, or add --no-metrics")
    return revision.read(WORKSPACE)


def _about(domain: str, model: Trained) -> dict[str, Any]:
    said = model.about
    return {
        "vqlcmd": vqlcmd.__version__,
        "method": said["params"]["method"],
        "parameters": sum(parameter.numel() for parameter in model.method.parameters()),
        "domain": domain,
        "classes": said["class_names"],
        "images": said.get("images", {}),
        "text": said.get("text", {}),
        "grid": list(said["grid"]),
        "codes": said["codes"],
        # The defaults of `sample`, as in the model's own file.
        "sampling": said["sampling"],
        "seed": said["params"]["seed"],
        "resumed_across": said.get("resumed_across", []),
    }


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise DataError(f"{source} is missing: `dvc repro` makes it")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
