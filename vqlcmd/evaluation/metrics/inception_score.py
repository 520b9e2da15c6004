"""Inception Score (IS): high if each image has a confident class prediction and all classes are equally frequent."""

from torch import Tensor

from vqlcmd.evaluation.comparison import SEED, Comparison, Measure
from vqlcmd.torchvision_guard import guard_torchvision

FEATURES = "features"
SPLITS = 10


def measure(comparison: Comparison) -> dict[str, Measure]:
    """`is` and `is_std`, over splits of at least two images, since a single image always scores 1."""
    logits = comparison.generated.logits
    if logits is None:
        missing = Measure(None, f"{comparison.settings.features} tells no classes here")
        return {"is": missing, "is_std": missing}
    size = len(logits) // SPLITS
    if size < 2:
        note = f"{len(logits)} images in {SPLITS} splits: a split of one image always scores 1"
        return {"is": Measure(None, note), "is_std": Measure(None, note)}
    mean, spread = inception_score(logits)
    capped = logits.shape[1] > size
    note = f"{size} images in a split score at most {size}, with {logits.shape[1]:,} classes" if capped else ""
    return {"is": Measure(mean, note), "is_std": Measure(spread, note)}


def inception_score(logits: Tensor, splits: int = SPLITS, seed: int = SEED) -> tuple[float, float]:
    """exp E KL(p(y|x) || p(y)) of raw logits (n, C), n >= splits: mean and standard deviation over shuffled splits."""
    assert len(logits) >= splits, (len(logits), splits)
    guard_torchvision()
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    score = isc_features_to_metric(logits.cpu(), splits=splits, shuffle=True, rng_seed=seed)
    return score[KEY_METRIC_ISC_MEAN], score[KEY_METRIC_ISC_STD]
