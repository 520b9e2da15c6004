"""Memorisation: are samples nearer to training images than held-out images are?"""

import math

import torch
from torch import Tensor

from vqlcmd.evaluation.comparison import Comparison, Measure

FEATURES = "precision_features"


def measure(comparison: Comparison) -> dict[str, Measure]:
    """`nearest_ratio` and `nearest_share` of samples: about 1 and `evaluate.nearest.quantile` without memorisation."""
    if comparison.samples is None:
        return {}
    found, share = comparison.samples.nearest, comparison.settings.nearest.quantile
    least = math.ceil(1 / share)
    if not found.training_images or len(found.heldout) < least:
        note = (
            f"the reference holds {found.training_images} training and {len(found.heldout)} held-out images: "
            f"1 and {least} are needed"
        )
        return {"nearest_ratio": Measure(None, note), "nearest_share": Measure(None, note)}
    ratio, nearer = nearness(found.samples, found.heldout, share)
    note = "" if ratio is not None else "half of the held-out images are copies of training images"
    beyond = "" if nearer is not None else f"{share:.0%} of the held-out images, or more, are copies of training images"
    return {"nearest_ratio": Measure(ratio, note), "nearest_share": Measure(nearer, beyond)}


def nearness(generated: Tensor, heldout: Tensor, share: float) -> tuple[float | None, float | None]:
    """Ratio of median distances, and fraction of samples nearer than the `share` quantile of held-out distances.

    `generated` (n,) and `heldout` (h,) are distances to the nearest training image. The ratio is None if the held-out
    median is 0. The fraction, in 0..1, is `share` for samples distributed like held-out images; it is None if the
    quantile is 0, since then nothing is nearer, not even a copy. Both sides are reconstructions, so that both have the
    tokenizer's losses.
    """
    middle = heldout.double().median()
    ratio = (generated.double().median() / middle).item() if middle > 0 else None
    near = torch.quantile(heldout.double(), share)
    return ratio, (generated.double() < near).double().mean().item() if near > 0 else None
