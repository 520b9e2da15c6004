"""MaskGIT (Chang et al. 2022), as Besnier & Chen (2023) trained it: the most confident tokens are revealed first.

Section 8 of docs/method.md. Shapes: B images, N tokens, K codes.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from vqlcmd.diffusion.masked.model import Masked, Sampler
from vqlcmd.diffusion.masked.samplers import SAMPLERS
from vqlcmd.params import ModelParams
from vqlcmd.rng import CounterRNG

SMOOTHING = 0.1


def share_masked(r: Tensor) -> Tensor:
    """Fraction of tokens to mask, arccos(r) / (pi / 2): shape of r, 1 at r = 0, 0 at r = 1."""
    return torch.arccos(r) / (math.pi / 2)


class MaskGIT(Masked):
    """Cross-entropy at all positions; its own sampler, `ancestral`, reveals tokens by confidence."""

    betas = (0.9, 0.96)
    weight_decay = 1e-5
    ways: ClassVar[Mapping[str, Sampler]] = {**SAMPLERS, "ancestral": SAMPLERS["confidence"]}
    samplers = tuple(ways)

    def __init__(self, params: ModelParams, codebook_KD: Tensor, tokens: int, classes: int):
        super().__init__(params, codebook_KD, tokens, classes)
        self.weights = {"ce": 1.0}

    def forward(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, teacher: Any) -> dict[str, Tensor]:
        """{"ce": cross-entropy at all positions with smoothed labels}, nats per token: (B,)."""
        ratio = share_masked(rng.stratified("time", self.batch_size))
        x_BN, t = self.noised(tokens_BN, ratio, rng)
        logits_BNK = self.logits(x_BN, t, self.drop_classes(label, rng))
        smooth = F.cross_entropy(logits_BNK.transpose(1, 2), tokens_BN, label_smoothing=SMOOTHING, reduction="none")
        return {"ce": smooth.mean(dim=1)}

    def noised(self, tokens_BN: Tensor, u: Tensor, rng: CounterRNG) -> tuple[Tensor, Tensor]:
        return self.mask(tokens_BN, u, rng), torch.zeros_like(u)

    def share_masked(self, t: Tensor) -> Tensor:
        return share_masked(1 - t)

    def alpha_bar(self, u: Tensor) -> Tensor:
        return 1 - u.double()
