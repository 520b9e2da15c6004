"""The adversarial term: a patch discriminator, hinge losses, and a weight that balances gradients.

Shapes: B images, C channels, S pixels a side, P patches.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8
LARGEST_RATIO = 1e4


class PatchDiscriminator(nn.Sequential):
    """Maps images [B, 3, S, S] in [-1, 1] to a score for every patch [B, 1, P, P]: above 0 for real ones.

    `layers` convolutions halve the side. Group normalisation is used, so that scores do not depend on the batch, nor on
    the number of processes.
    """

    def __init__(self, channels: int, layers: int) -> None:
        stack: list[nn.Module] = [nn.Conv2d(3, channels, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = channels
        for number in range(1, layers + 1):
            wider = channels * min(2**number, 8)
            stride = 2 if number < layers else 1
            stack += [
                nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(GROUPS, wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        super().__init__(*stack, nn.Conv2d(width, 1, 4, padding=1))


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """(E max(0, 1 - D(x)) + E max(0, 1 + D(y))) / 2: the discriminator's loss, a scalar."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def verdict(fake: Tensor) -> Tensor:
    """-E D(y): the tokenizer's adversarial loss, a scalar."""
    return -fake.mean()


def gradient_ratio(first: Tensor, second: Tensor) -> Tensor:
    """|first| / |second| of two gradients with respect to the same weights, at most 10^4: a detached scalar."""
    return (first.norm() / (second.norm() + 1e-4)).clamp(max=LARGEST_RATIO).detach()


def smallest_side(layers: int) -> int:
    """Smallest side, in pixels, of an image that has one patch."""
    side = 1
    for stride in (1, *[1], *[2] * layers):
        # Backwards through a 4x4 convolution with padding 1.
        side = (side - 1) * stride + 4 - 2
    return side


def build(channels: int, layers: int, seed: int) -> PatchDiscriminator:
    """A discriminator with new weights from `seed`; the global random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PatchDiscriminator(channels, layers)
