"""Kernel distance (KID): the unbiased squared maximum mean discrepancy of a cubic kernel."""

from torch import Tensor

from vqlcmd.evaluation.comparison import SEED, Comparison, Measure
from vqlcmd.torchvision_guard import guard_torchvision

FEATURES = "features"


def measure(comparison: Comparison) -> dict[str, Measure]:
    """`kid` and `kid_std`, mean and standard deviation over subsets; None, with a note, for too few images."""
    settings = comparison.settings.kid
    generated, real = comparison.generated.features, comparison.real.features
    fewest = min(len(generated), len(real))
    if fewest < settings.subset_size:
        missing = Measure(None, f"{fewest} images are fewer than evaluate.kid.subset_size {settings.subset_size}")
        return {"kid": missing, "kid_std": missing}
    mean, spread = kernel_distance(generated, real, settings.subsets, settings.subset_size)
    return {"kid": Measure(mean), "kid_std": Measure(spread)}


def kernel_distance(
    generated: Tensor, real: Tensor, subsets: int, subset_size: int, seed: int = SEED
) -> tuple[float, float]:
    """MMD^2 with k(x, y) = (x.y / D + 1)^3 of features (n, D), (m, D): mean and standard deviation over random subsets.

    Unbiased, so it may be negative, and values of sets of different sizes are comparable. Bińkowski et al. 2018;
    computed by torch-fidelity, `metric_kid`.
    """
    guard_torchvision()
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    found = kid_features_to_metric(
        generated, real, kid_subsets=subsets, kid_subset_size=subset_size, rng_seed=seed, verbose=False
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]
