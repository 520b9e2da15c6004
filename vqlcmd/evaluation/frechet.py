"""The Fréchet distance between the statistics of two sets, and between images and their reconstructions."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from vqlcmd.evaluation.moments import Moments, Statistics
from vqlcmd.torchvision_guard import guard_torchvision

_ROUNDING = 1e-5


def frechet_distance(generated: Statistics, real: Statistics) -> float:
    """|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of two sets' statistics.

    A value that is negative only by rounding becomes 0. The distance is biased upwards for few images, so only compare
    values of sets of equal size. Computed by torch-fidelity, `metric_fid`.
    """
    guard_torchvision()
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    one, two = ({"mu": each.mean.numpy(), "sigma": each.covariance.numpy()} for each in (generated, real))
    distance = fid_statistics_to_metric(one, two, verbose=False)[KEY_METRIC_FID]
    spread = float(np.trace(one["sigma"]) + np.trace(two["sigma"]))
    return 0.0 if -_ROUNDING * spread <= distance < 0 else distance


@torch.no_grad()
def reconstruction_distance(
    pairs: Iterable[tuple[Tensor, Tensor]], features: Callable[[Tensor], Tensor]
) -> float | None:
    """Fréchet distance between images and their reconstructions; None for fewer than two images.

    `pairs` are batches (images, reconstructions), each (B, 3, S, S) uint8; `features` maps such a batch to (B, D). Both
    sets have the same content, so this is less biased for few images than the distance of samples: equal sets have
    distance 0, whatever their size.
    """
    real, reconstructed = Moments(), Moments()
    for images, decoded in pairs:
        real.add(features(images))
        reconstructed.add(features(decoded))
    one, two = reconstructed.statistics(), real.statistics()
    return None if one is None or two is None else frechet_distance(one, two)
