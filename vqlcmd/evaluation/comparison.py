"""The input of a metric: statistics and features of a set of generated images and of the real images."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vqlcmd.evaluation.moments import Statistics
from vqlcmd.evaluation.nearest import Nearest
from vqlcmd.params import Evaluate

SEED = 2020
"""Random seed of the metrics: torch-fidelity's default, so that both give the same numbers."""


class Measure(NamedTuple):
    """A metric's value; `note` says why there is none, or warns about it."""

    value: float | None
    note: str = ""


@dataclass(frozen=True)
class ImageSet:
    """A set of images: statistics of all of them, and features of k of them, at most `evaluate.precision_images`.

    `count` is the number of images behind `statistics`, None where a file does not say. `features` (k, D) and raw
    `logits` (n, C), if any, are from the network `evaluate.features`, `precision_features` (k, P) from
    `evaluate.precision_features`.
    """

    count: int | None
    statistics: Statistics | None
    features: Tensor
    precision_features: Tensor
    logits: Tensor | None = None


@dataclass(frozen=True)
class Samples:
    """What else metrics use if the generated images are a model's samples: their `tokens` (n, N), and more.

    `labels` (n,) are the classes they were generated for, or None; `training_tokens` (m, N) are those of the training
    images; `nearest` has the distances to the nearest training images.
    """

    tokens: Tensor
    labels: Tensor | None
    training_tokens: Tensor
    nearest: Nearest


@dataclass(frozen=True)
class Comparison:
    """Generated images to compare with real ones; `samples` is None where the former are reconstructions."""

    generated: ImageSet
    real: ImageSet
    settings: Evaluate
    device: torch.device | str
    samples: Samples | None = None
