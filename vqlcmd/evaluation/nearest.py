"""Which training image is nearest to a sample, in feature space, and how near held-out images come.

Both sides are seen through the tokenizer, so that what it loses is on both: a sample with the tokens of a training
image is at distance 0. Shapes: k samples, t training images and h held-out ones, of D features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vqlcmd.evaluation.distances import nearest


@dataclass(frozen=True)
class Nearest:
    """`samples` (k,) and `heldout` (h,): distances to the nearest of `training_images`; `row` (k,): which one it is.

    Rows count the images of the reference; without training images among them all are empty.
    """

    samples: Tensor
    row: Tensor
    heldout: Tensor
    training_images: int

    def closest(self, count: int) -> Tensor:
        """The samples that are nearest to a training image, at most `count`, nearest first."""
        return self.samples.argsort(stable=True)[:count]


def nearest_training(
    features: Tensor, reconstructed: Tensor, training: Tensor, heldout: Tensor, device: torch.device | str
) -> Nearest:
    """Of samples with `features` (k, D) among `reconstructed` (r, D) images: `training`, `heldout` are masks (r,)."""
    rows = training.nonzero()[:, 0]
    if not len(rows):
        return Nearest(torch.empty(0), torch.empty(0, dtype=torch.int64), torch.empty(0), 0)
    distance, index = nearest(features, reconstructed[rows], device)
    others, _ = nearest(reconstructed[heldout], reconstructed[rows], device)
    return Nearest(distance, rows[index], others, len(rows))
