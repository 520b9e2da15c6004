"""Memorising: are samples nearer to training images than images that were held out?"""

import math

import torch
from torch import Tensor

from vqlcmd.evaluation.comparison import Comparison, Measure

FEATURES = "precision_features"


def measure(comparison: Comparison) -> dict[str, Measure]:
    """`nearest_ratio` and `nearest_share` of samples: about 1 and the quantile where nothing is memorised."""
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
    """Of distances to the nearest training image, (n,) and (h,): the ratio of their medians, None over 0, and

    the share in 0..1 of samples that are nearer than the nearest `share` of the held-out images: `share`, were they
    drawn as those are; None where these are at distance 0, than which nothing is nearer, not even a copy.
    Both sides are reconstructions, so that what the tokenizer loses is on both.
    """
    middle = heldout.double().median()
    ratio = (generated.double().median() / middle).item() if middle > 0 else None
    near = torch.quantile(heldout.double(), share)
    return ratio, (generated.double() < near).double().mean().item() if near > 0 else None
