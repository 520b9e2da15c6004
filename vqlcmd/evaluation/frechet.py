"""The Fréchet distance of two sets' statistics, and of images to their reconstructions."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from vqlcmd.evaluation.moments import Moments, Statistics
from vqlcmd.torchvision_guard import guard_torchvision

_ROUNDING = 1e-5


def frechet_distance(generated: Statistics, real: Statistics) -> float:
    """|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of two sets' statistics.

    Only a value that is negative by rounding becomes 0. It is biased upwards by few images, so it compares sets of
    equal size only; torch-fidelity, `metric_fid`.
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
    """Of images to their reconstructions, which come in batches of pairs (B, 3, S, S), uint8; None below two images.

    `features` maps such a batch to (B, D). Both sets show the same things, so few images bias it less than they bias
    the distance of samples: equal pictures have 0, whatever their number.
    """
    real, reconstructed = Moments(), Moments()
    for images, decoded in pairs:
        real.add(features(images))
        reconstructed.add(features(decoded))
    one, two = reconstructed.statistics(), real.statistics()
    return None if one is None or two is None else frechet_distance(one, two)
