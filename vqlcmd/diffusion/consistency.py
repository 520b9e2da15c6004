"""Consistency matching: the earlier time s, and the step from z_t to z_s. Section 4 of docs/method.md, equation 3.

Shapes: B images, N tokens, D embedding size, K codes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vqlcmd.diffusion import gaussian
from vqlcmd.diffusion.schedule import Schedule
from vqlcmd.rng import CounterRNG


@dataclass(frozen=True)
class Noised:
    """z_t (B, N, D), the embeddings (dropped tokens as [mask]) and the noise it was made from, and times t (B,)."""

    z: Tensor
    psi: Tensor
    eps: Tensor
    t: Tensor


Guess = Callable[[Tensor, Tensor], Tensor]
"""The teacher's expected embedding (B, N, D) at z (B, N, D) and times (B,)."""


def along_model(schedule: Schedule, now: Noised, s: Tensor, guess: Guess, rng: CounterRNG) -> Tensor:
    """One DDIM step along the teacher's own expected embedding: (B, N, D)."""
    return gaussian.ddim_step(schedule, now.z, guess(now.z, now.t), s, now.t)


def along_data(schedule: Schedule, now: Noised, s: Tensor, guess: Guess, rng: CounterRNG) -> Tensor:
    """z_s = alpha_s Psi(x) + sigma_s eps: one DDIM step along the true embedding, same noise, same dropped tokens."""
    return gaussian.diffuse(schedule, now.psi, s, now.eps)


def along_posterior(schedule: Schedule, now: Noised, s: Tensor, guess: Guess, rng: CounterRNG) -> Tensor:
    """z_s ~ q(z_s | z_t, Psi(x)): an ancestral step along the true embedding, with fresh noise."""
    eps_BND = rng.normal("earlier_eps", *now.eps.shape[1:])
    return gaussian.ancestral_step(schedule, now.z, now.psi, s, now.t, eps_BND)


@dataclass(frozen=True)
class Step:
    """A step from z_t to z_s, and how many teacher passes it costs besides the one that gives the target."""

    move: Callable[[Schedule, Noised, Tensor, Guess, CounterRNG], Tensor]
    passes: int


STEPS = {
    "model": Step(along_model, passes=1),
    "data": Step(along_data, passes=0),
    "posterior": Step(along_posterior, passes=0),
}
"""Valid values of `consistency_step` in params.yaml."""

NEAR = 0.1
"""With "near", s is at least 1 - NEAR of the way from the clean end to t."""
SEGMENTS = 8
"""How many segments of equal length there are between `start` and `end`."""


def uniform(schedule: Schedule, t: Tensor, u: Tensor) -> Tensor:
    """s between the clean end and t."""
    return schedule.start + (t - schedule.start) * u


def near(schedule: Schedule, t: Tensor, u: Tensor) -> Tensor:
    """s in the last tenth of the way to t, as consistency models take neighbouring times."""
    return t - NEAR * (t - schedule.start) * u


def segments(schedule: Schedule, t: Tensor, u: Tensor) -> Tensor:
    """The beginning of the segment that contains t; segments are those of Heek et al. 2024."""
    length = (schedule.end - schedule.start) / SEGMENTS
    number = ((t - schedule.start) / length).floor().clamp(0, SEGMENTS - 1)
    # Rounding may have put t just below the beginning of its segment.
    return torch.minimum(schedule.start + length * number, t)


TIMES: dict[str, Callable[[Schedule, Tensor, Tensor], Tensor]] = {
    "uniform": uniform,
    "near": near,
    "segments": segments,
}
"""Valid values of `consistency_time` in params.yaml: from t (B,) and u in (0, 1) (B,), float64, to s <= t (B,)."""
