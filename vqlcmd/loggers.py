"""Loggers for a run's rows and figures, besides metrics/: `train.logger`, an optional package; none by default."""

import importlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vqlcmd.runtime.errors import ConfigError

PROJECT = "vqlcmd"


@dataclass(frozen=True)
class Log:
    """Logs the rows of train.tsv or tokenizer.tsv, and figures: a name, the step, a PNG file."""

    row: Callable[[Mapping[str, float]], None]
    picture: Callable[[str, int, Path], None]


@contextmanager
def _none(folder: Path, params: Mapping[str, Any]) -> Iterator[Log]:
    yield Log(lambda row: None, lambda name, step, path: None)


@contextmanager
def _tensorboard(folder: Path, params: Mapping[str, Any]) -> Iterator[Log]:
    _package("tensorboard")
    board = importlib.import_module("torch.utils.tensorboard")
    writer: Any = None

    def opened(step: int) -> Any:
        nonlocal writer
        if writer is None:
            # Steps that an interrupted run logged after its last saved state are removed, since they are logged again.
            writer = board.SummaryWriter(str(folder), purge_step=step)
        return writer

    def log(row: Mapping[str, float]) -> None:
        for name, value in _scalars(row).items():
            opened(int(row["step"])).add_scalar(name, value, int(row["step"]))
        opened(int(row["step"])).flush()

    def picture(name: str, step: int, path: Path) -> None:
        with Image.open(path) as opened_picture:
            pixels = np.asarray(opened_picture.convert("RGB"))
        opened(step).add_image(name, pixels, step, dataformats="HWC")
        opened(step).flush()

    try:
        yield Log(log, picture)
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _wandb(folder: Path, params: Mapping[str, Any]) -> Iterator[Log]:
    folder.mkdir(parents=True, exist_ok=True)
    wandb = _package("wandb")
    with wandb.init(project=PROJECT, id=folder.name, resume="allow", dir=str(folder), config=dict(params)) as run:
        yield Log(
            lambda row: run.log(_scalars(row), step=int(row["step"])),
            lambda name, step, path: run.log({name: wandb.Image(str(path))}, step=step),
        )


@contextmanager
def _trackio(folder: Path, params: Mapping[str, Any]) -> Iterator[Log]:
    trackio = _package("trackio")
    trackio.init(project=PROJECT, name=folder.name, resume="allow", config=dict(params))
    try:
        yield Log(
            lambda row: trackio.log(_scalars(row), step=int(row["step"])),
            lambda name, step, path: trackio.log({name: trackio.Image(str(path))}, step=step),
        )
    finally:
        trackio.finish()


LOGGERS = {"none": _none, "tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
"""Maps `train.logger` to a context manager: (folder of the run, with the run's name; parameters) -> Log.

A resumed run logs its last saved row again, and then the rows that were lost.
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
