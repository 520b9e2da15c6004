"""VQ-Diffusion (Gu et al. 2022): every step masks some tokens and replaces a few by random codes.

Section 8 of docs/method.md. Shapes: B images, N tokens, K codes, T steps.
"""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from vqlcmd.diffusion import losses
from vqlcmd.diffusion.discrete import DiscreteDiffusion
from vqlcmd.params import ModelParams, Sampling
from vqlcmd.params.types import Section
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import distributed

SEEN = 10
"""Steps are drawn uniformly until each has been drawn more often than this, and then by importance."""


def _paper(timesteps: int) -> tuple[Tensor, Tensor]:
    """(keep, mask) of the paper: cumulative replacement from 0 to 0.1, cumulative masking from 0 to 0.9."""
    mask = 0.9 * torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    return 1 - mask - mask / 9, mask


def _released(timesteps: int) -> tuple[Tensor, Tensor]:
    """(keep, mask) of the published code: only masking, except for a cumulative replacement of 1e-6."""
    keep = torch.linspace(0.99999, 9e-6, timesteps, dtype=torch.float64)
    mask = torch.linspace(9e-6, 0.99999, timesteps, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    return torch.cat([one, keep]), torch.cat([0 * one, mask])


SCHEDULES: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {"paper": _paper, "released": _released}
"""Valid values of `discrete.schedule.vq_diffusion`: functions from T to cumulative (keep, mask) at times 0 to T."""


class Knobs(Section):
    """The sampling parameters of VQ-Diffusion."""

    truncation: Annotated[
        float,
        Field(gt=0, le=1, description="Codes are kept while the mass before them is below this share; 1 keeps all."),
    ]


class VQDiffusion(DiscreteDiffusion):
    """States are the K codes and [mask]; training importance-samples the steps by their past losses."""

    betas = (0.9, 0.96)
    weight_decay = 0.045
    knobs = Knobs
    schedules = SCHEDULES
    built_by = (*DiscreteDiffusion.built_by, "discrete.schedule.vq_diffusion")
    history: Tensor
    drawn: Tensor

    def __init__(self, params: ModelParams, codebook_KD: Tensor, tokens: int, classes: int):
        keep, mask = SCHEDULES[params.discrete.schedule["vq_diffusion"]](params.discrete.timesteps)
        super().__init__(params, codebook_KD, tokens, classes, keep=keep, mask=mask, extra_states=1)
        self.weights = {"vb": 1.0, "aux": 1e-3}
        self.register_buffer("history", torch.zeros(params.discrete.timesteps))
        self.register_buffer("drawn", torch.zeros(params.discrete.timesteps))
        self._seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, teacher: Any) -> dict[str, Tensor]:
        """{"vb": L_vb(t), "aux": (2 - (t - 1) / T) (-log p(x_0 | x_t))} / (T P(t)), nats per token: (B,) each.

        One step t per image; P(t) is the probability that it is drawn.
        """
        t, probability = self.draw_steps(rng.stratified("time", self.batch_size))
        x_BN = self.diffuse(tokens_BN, t, rng)
        logits_BNK = self.logits(x_BN, self.network_time(t), self.drop_classes(label, rng))
        vb = self.divergence(logits_BNK, tokens_BN, x_BN, t)
        if self.training:
            self._seen.append((t, vb.detach() * self.tokens))
        weight = 1 / (self.kernel.timesteps * probability)
        aux = (2 - self.network_time(t - 1)) * losses.cross_entropy(logits_BNK, tokens_BN)
        return {"vb": weight * vb, "aux": weight * aux}

    def reverse(self, p_BNK: Tensor, x_BN: Tensor, s: Tensor, t: Tensor) -> Tensor:
        return self.kernel.posterior(p_BNK, x_BN, s, t)

    def predicted(self, logits_BNK: Tensor, how: Sampling) -> Tensor:
        return truncated(logits_BNK.softmax(dim=2), how.own["truncation"])

    def draw_steps(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Steps t (B,) in 1..T from uniform numbers (B,), and the probability (B,) of each."""
        # The first step's loss is a likelihood and not a divergence, so the second step's is used for it.
        importance = torch.cat([self.history[1:2], self.history[1:]]).sqrt() + 1e-4
        weight = torch.where((self.drawn > SEEN).all(), importance, 1.0)
        cumulative = weight.cumsum(dim=0)
        index = torch.searchsorted(cumulative, u * cumulative[-1]).clamp_max(len(weight) - 1)
        return index + 1, weight[index] / cumulative[-1]

    @torch.no_grad()
    def finish_step(self) -> None:
        """Update the moving average (decay 0.9) of the squared loss of each drawn step, and its count.

        Uses the `forward` calls of all processes since the last call.
        """
        t, loss = (torch.cat(column) for column in zip(*self._seen, strict=True))
        self._seen.clear()
        which_BT = F.one_hot(t - 1, self.kernel.timesteps).float()
        squares, counts = (which_BT * loss[:, None].square()).sum(dim=0), which_BT.sum(dim=0)
        distributed.average([squares, counts])
        mean = squares / counts.clamp_min(1e-9)
        self.history.copy_(torch.where(counts > 0, 0.9 * self.history + 0.1 * mean, self.history))
        self.drawn += counts * distributed.world()


def truncated(p_BNK: Tensor, share: float) -> Tensor:
    """p (B, N, K), with codes set to 0 if those of higher probability have a mass of `share` or more.

    The most probable code is always kept. The result is not renormalised.
    """
    ordered, order = p_BNK.sort(dim=2, descending=True)
    before = ordered.cumsum(dim=2) - ordered
    # The largest has no mass before it, but rounding may say otherwise.
    keep = (before < share).index_fill(2, torch.zeros(1, dtype=torch.int64, device=p_BNK.device), True)
    return torch.zeros_like(p_BNK).scatter(2, order, torch.where(keep, ordered, 0.0))
