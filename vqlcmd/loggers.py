"""Where the scalars of a run go besides metrics/train.tsv: `train.logger`, an optional package; none by default."""

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vqlcmd.runtime.errors import ConfigError

PROJECT = "vqlcmd"

Log = Callable[[Mapping[str, float]], None]


@contextmanager
def _none(folder: Path, params: Mapping[str, Any]) -> Iterator[Log]:
    yield lambda row: None


@contextmanager
def _tensorboard(folder: Path, params: Mapping[str, Any]) -> Iterator[Log]:
    _package("tensorboard")
    board = importlib.import_module("torch.utils.tensorboard")
    writer: Any = None

    def log(row: Mapping[str, float]) -> None:
        nonlocal writer
        if writer is None:
            # What an interrupted run wrote after its last saved state comes again.
            writer = board.SummaryWriter(str(folder), purge_step=int(row["step"]))
        for name, value in _scalars(row).items():
            writer.add_scalar(name, value, int(row["step"]))
        writer.flush()

    try:
        yield log
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _wandb(folder: Path, params: Mapping[str, Any]) -> Iterator[Log]:
    folder.mkdir(parents=True, exist_ok=True)
    with _package("wandb").init(
        project=PROJECT, id=folder.name, resume="allow", dir=str(folder), config=dict(params)
    ) as run:
        yield lambda row: run.log(_scalars(row), step=int(row["step"]))


@contextmanager
def _trackio(folder: Path, params: Mapping[str, Any]) -> Iterator[Log]:
    trackio = _package("trackio")
    trackio.init(project=PROJECT, name=folder.name, resume="allow", config=dict(params))
    try:
        yield lambda row: trackio.log(_scalars(row), step=int(row["step"]))
    finally:
        trackio.finish()


LOGGERS = {"none": _none, "tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
"""`train.logger` to a context: (folder of the run, which gives its name; parameters) -> log(row of train.tsv).

A run that goes on begins with the last row that it has, and rows that it lost come again.
"""


def _scalars(row: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "step" and math.isfinite(value)}


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(
            f"train.logger is {name}, which is not installed: pip install 'vqlcmd[{name}]', or set it to none"
        ) from None
