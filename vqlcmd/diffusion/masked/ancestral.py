"""Samplers that step back in time: masked tokens are revealed at random and, with remasking, may be masked again.

Section 8 of docs/method.md, "Masked diffusion" and "Remasking". Shapes: B images, N tokens, K codes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from vqlcmd.diffusion.guidance import guided, precise
from vqlcmd.diffusion.markov import sample_categorical
from vqlcmd.diffusion.masked.model import Masked
from vqlcmd.params import Sampling
from vqlcmd.rng import CounterRNG

Remask = Callable[[float, float], float]
"""(eta, sigma_max) -> sigma, the probability of masking a known token again. Up to sigma_max the marginals are kept."""


def never(eta: float, largest: float) -> float:
    """sigma = 0: revealed tokens stay (Sahoo et al. 2024)."""
    return 0.0


def capped(eta: float, largest: float) -> float:
    """sigma = min(eta, sigma_max): ReMDM-cap (Wang et al. 2025)."""
    return min(eta, largest)


def rescaled(eta: float, largest: float) -> float:
    """sigma = eta sigma_max: ReMDM-rescale (Wang et al. 2025)."""
    return eta * largest


@dataclass(frozen=True)
class Ancestral:
    """`how.steps` steps from all [mask] to none, evenly spaced in time."""

    remask: Remask

    def draw(
        self, model: Masked, label: Tensor | None, rng: CounterRNG, how: Sampling, x_BN: Tensor, known: Tensor | None
    ) -> Tensor:
        """Tokens (B, N) int64 from states `x_BN`, in which the `known` tokens are in place and the rest is [mask]."""
        predict = guided(precise(model.logits, how), how.guidance, null=model.classes)
        no_time = torch.zeros(len(x_BN), device=x_BN.device)
        times = torch.linspace(1, 0, how.steps + 1, dtype=torch.float64)
        for index, (m_t, m_s) in enumerate(pairwise(model.share_masked(times).tolist())):
            at = rng.with_step(index)
            p_BNK = predict(x_BN, no_time, label).softmax(dim=2)
            drawn_BN = sample_categorical(p_BNK, at.uniform("step", model.tokens))
            again = self.remask(how.own["eta"], min(1.0, m_s / (1 - m_t)) if m_t < 1 else 1.0)
            stays = (m_s - again * (1 - m_t)) / m_t
            masked_BN = x_BN == model.codes
            revealed_BN = torch.where(masked_BN, drawn_BN, x_BN)
            chance_BN = torch.where(masked_BN, stays, again)
            x_BN = torch.where(at.uniform("choice", model.tokens) < chance_BN, model.codes, revealed_BN)
            if known is not None:
                x_BN = torch.where(known >= 0, known, x_BN)
        return x_BN

    def nfe(self, model: Masked, how: Sampling) -> int:
        """Passes through the network that one image costs."""
        return how.steps * (2 if how.guidance else 1)
