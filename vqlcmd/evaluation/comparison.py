"""What a metric is given: a set of generated images beside the real ones, as features."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vqlcmd.evaluation.moments import Statistics
from vqlcmd.evaluation.nearest import Nearest
from vqlcmd.params import Evaluate

SEED = 2020
"""Of what metrics draw: torch-fidelity's own, so that its numbers and ours are the same."""


class Measure(NamedTuple):
    """A metric's value; `note` says why there is none, or what to beware of."""

    value: float | None
    note: str = ""


@dataclass(frozen=True)
class ImageSet:
    """A set of images. Of the first k of them there are features, at most `evaluate.precision_images`.

    `count`: images behind `statistics`, None where a file does not say; `features` (k, D) of `evaluate.features`,
    `precision_features` (k, P) of `evaluate.precision_features`; raw `logits` (n, C) of `evaluate.features`, if any.
    """

    count: int | None
    statistics: Statistics | None
    features: Tensor
    precision_features: Tensor
    logits: Tensor | None = None


@dataclass(frozen=True)
class Samples:
    """What else there is to compare where the generated images are a model's samples (n of N tokens).

    `labels` (n,) are the classes asked for, None without; `training_tokens` (m, N).
    """

    tokens: Tensor
    labels: Tensor | None
    training_tokens: Tensor
    nearest: Nearest


@dataclass(frozen=True)
class Comparison:
    """Generated against real images; `samples` is None where they are reconstructions."""

    generated: ImageSet
    real: ImageSet
    settings: Evaluate
    device: torch.device | str
    samples: Samples | None = None
