"""The training image nearest to each sample in feature space and, for comparison, to each held-out image.

Training and held-out images are reconstructed by the tokenizer, so that both sides have its losses: a sample with the
tokens of a training image has distance 0. Shapes: k samples, t training images and h held-out ones, of D features.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vqlcmd.evaluation.distances import nearest


@dataclass(frozen=True)
class Nearest:
    """Distances of `samples` (k,) and `heldout` (h,) to the nearest training image, which is `row` (k,) for samples.

    Rows index the images of the reference, of which `training_images` are training images. All are empty without any.
    """

    samples: Tensor
    row: Tensor
    heldout: Tensor
    training_images: int

    def closest(self, count: int) -> Tensor:
        """Indices of the at most `count` samples that are nearest to a training image, nearest first."""
        return self.samples.argsort(stable=True)[:count]


def nearest_training(
    features: Tensor, reconstructed: Tensor, training: Tensor, heldout: Tensor, device: torch.device | str
) -> Nearest:
    """`Nearest` of samples with `features` (k, D); `training`, `heldout` are masks (r,) of `reconstructed` (r, D)."""
    rows = training.nonzero()[:, 0]
    if not len(rows):
        return Nearest(torch.empty(0), torch.empty(0, dtype=torch.int64), torch.empty(0), 0)
    distance, index = nearest(features, reconstructed[rows], device)
    others, _ = nearest(reconstructed[heldout], reconstructed[rows], device)
    return Nearest(distance, rows[index], others, len(rows))
