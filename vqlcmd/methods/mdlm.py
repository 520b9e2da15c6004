"""Masked diffusion in continuous time with the simplified bound (Sahoo et al. 2024, Shi et al. 2024).

Section 8 of docs/method.md. Shapes: B images, N tokens, K codes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vqlcmd.diffusion.masked.model import Masked
from vqlcmd.diffusion.masked.samplers import SAMPLERS
from vqlcmd.params import ModelParams
from vqlcmd.rng import CounterRNG


@dataclass(frozen=True)
class Schedule:
    """`share`: the fraction m(t) of masked tokens, from 0 at t = 0 to 1 at t = 1; `weight`: m'(t) / m(t). Float64."""

    share: Callable[[Tensor], Tensor]
    weight: Callable[[Tensor], Tensor]


SCHEDULES = {
    "log_linear": Schedule(share=lambda t: t, weight=lambda t: 1 / t),
    "cosine": Schedule(
        share=lambda t: torch.sin(t * (math.pi / 2)), weight=lambda t: (math.pi / 2) / torch.tan(t * (math.pi / 2))
    ),
}
"""Valid values of `discrete.schedule.mdlm`. alpha = 1 - m is 1 - t or 1 - cos((1 - t) pi / 2), respectively."""


class MDLM(Masked):
    """Cross-entropy at masked positions, with the bound's weight; unmasked tokens are known and have no loss."""

    betas = (0.9, 0.999)
    weight_decay = 0.0
    ways = SAMPLERS
    samplers = tuple(SAMPLERS)
    schedules = SCHEDULES
    built_by = (*Masked.built_by, "discrete.schedule.mdlm")

    def __init__(self, params: ModelParams, codebook_KD: Tensor, tokens: int, classes: int):
        super().__init__(params, codebook_KD, tokens, classes)
        self.schedule = SCHEDULES[params.discrete.schedule["mdlm"]]
        self.weights = {"vb": 1.0}

    def forward(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, teacher: Any) -> dict[str, Tensor]:
        """{"vb": the bound's integrand at one time per image}, nats per token: (B,)."""
        t = rng.stratified("time", self.batch_size)
        x_BN, no_time = self.noised(tokens_BN, t, rng)
        logits_BNK = self.logits(x_BN, no_time, self.drop_classes(label, rng))
        nats_BN = F.cross_entropy(logits_BNK.transpose(1, 2), tokens_BN, reduction="none")
        masked = (nats_BN * (x_BN == self.codes)).sum(dim=1) / self.tokens
        return {"vb": self.schedule.weight(t.double()).to(masked.dtype) * masked}

    def noised(self, tokens_BN: Tensor, u: Tensor, rng: CounterRNG) -> tuple[Tensor, Tensor]:
        return self.mask(tokens_BN, self.share_masked(u), rng), torch.zeros_like(u)

    def share_masked(self, t: Tensor) -> Tensor:
        return self.schedule.share(t.double())

    def alpha_bar(self, u: Tensor) -> Tensor:
        return 1 - self.share_masked(u)
