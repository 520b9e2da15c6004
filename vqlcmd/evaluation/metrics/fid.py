"""Fréchet distance (FID): how far mean and covariance of the features are from those of the real images."""

import numpy as np

from vqlcmd.evaluation.comparison import Comparison, Measure
from vqlcmd.evaluation.moments import Statistics
from vqlcmd.torchvision_guard import guard_torchvision

FEATURES = "features"
ENOUGH = 2048
"""Samples from which a Fréchet distance is commonly reported: as many as Inception has features."""
_ROUNDING = 1e-5


def measure(comparison: Comparison) -> dict[str, Measure]:
    """`fid`, noted where few images bias it."""
    generated, real = comparison.generated, comparison.real
    if generated.statistics is None or real.statistics is None:
        which, count = ("generated", generated.count) if generated.statistics is None else ("real", real.count)
        return {"fid": Measure(None, f"{count} {which} images have no covariance: at least 2 are needed")}
    return {"fid": Measure(frechet_distance(generated.statistics, real.statistics), _caution(comparison))}


def _caution(comparison: Comparison) -> str:
    sides = {"generated": comparison.generated.count, "real": comparison.real.count}
    size = comparison.generated.features.shape[1]
    few = [f"{count:,} {name}" for name, count in sides.items() if count is not None and count < max(ENOUGH, size)]
    if not few:
        return ""
    return (
        f"few images ({' and '.join(few)}) for {size:,} features: biased upwards; "
        "compare with sets of the same size only"
    )


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
