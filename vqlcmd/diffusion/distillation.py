"""Consistency distillation: a student learns to predict the ends of its teacher's DDIM trajectories.

Section 5 of docs/method.md.

Shapes: B images, N tokens, D embedding size, K codes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqlcmd.diffusion import gaussian, losses
from vqlcmd.diffusion.schedule import Schedule
from vqlcmd.rng import CounterRNG

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Logits (B, N, K) at z (B, N, D), times (B,) and classes (B,)."""


@dataclass(frozen=True)
class Guide:
    """The frozen teacher, whose DDIM sampler is distilled: its network, embedding, `psi_hat` and schedule."""

    network: Network
    embedding: Callable[[Tensor], Tensor]
    psi_hat: Callable[[Tensor], Tensor]
    schedule: Schedule
    times: Tensor
    """The times of its sampler, from the clean end to noise: (steps + 1,) float64."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Guide":
        """Returns self: the guide never changes, and the moving averages, which are copies of the student, share it."""
        return self

    @torch.no_grad()
    def earlier(self, z_BND: Tensor, label: Tensor | None, step: Tensor) -> Tensor:
        """z after one DDIM step from times[step] to times[step - 1]: (B, N, D). `step` (B,) is in 1 to steps."""
        t, s = self.times[step], self.times[step - 1]
        return gaussian.ddim_step(self.schedule, z_BND, self.psi_hat(self.network(z_BND, t, label)), s, t)


def consistency(
    guide: Guide,
    student: Network,
    average: Network,
    tokens_BN: Tensor,
    label: Tensor | None,
    u: Tensor,
    rng: CounterRNG,
) -> Tensor:
    """KL(target at z_s || student at z_t), averaged over tokens: (B,), nats. u (B,) in (0, 1] selects the step.

    z_s is one DDIM step of the guide from z_t. The target is the prediction of `average`, the student's moving average;
    at the clean end it is the prediction of the guide.
    """
    steps = len(guide.times) - 1
    step = (u * steps).long().clamp_max(steps - 1) + 1
    with torch.no_grad():
        psi_BND = guide.embedding(tokens_BN)
        z_t = gaussian.diffuse(guide.schedule, psi_BND, guide.times[step], rng.normal("eps", *psi_BND.shape[1:]))
        z_s, s, last = guide.earlier(z_t, label, step), guide.times[step - 1], step == 1
        target = average(z_s, s, label)
        if last.any():
            target[last] = guide.network(z_s[last], s[last], None if label is None else label[last]).to(target.dtype)
    return losses.consistency(target, student(z_t, guide.times[step], label))
