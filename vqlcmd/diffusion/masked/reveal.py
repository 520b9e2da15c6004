"""Samplers that reveal a given number of masked tokens at each step, by confidence or in Halton order.

Section 8 of docs/method.md, "MaskGIT" and "Halton order". Shapes: B images, N tokens, K codes.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vqlcmd.diffusion.guidance import guided, precise
from vqlcmd.diffusion.markov import sample_categorical
from vqlcmd.diffusion.masked.model import Masked
from vqlcmd.params import Sampling
from vqlcmd.rng import CounterRNG

Order = Callable[[Tensor, float, CounterRNG, tuple[int, ...]], Tensor]
"""(log p of the drawn tokens (B, N), noise scale, the step's rng, grid) -> scores (B, N); the largest come first."""


def by_confidence(log_p_BN: Tensor, noise: float, rng: CounterRNG, grid: tuple[int, ...]) -> Tensor:
    """Scores (B, N): log p plus Gumbel noise, so that the most confident tokens come first (Chang et al. 2022)."""
    return log_p_BN + noise * -(-rng.uniform("choice", log_p_BN.shape[1]).log()).log()


def by_halton(log_p_BN: Tensor, noise: float, rng: CounterRNG, grid: tuple[int, ...]) -> Tensor:
    """Scores (B, N) for Halton order, which spreads early tokens over the grid (Besnier et al. 2025).

    The order is the same for all images.
    """
    rank = torch.empty(len(halton_order(grid)), dtype=log_p_BN.dtype)
    rank[list(halton_order(grid))] = torch.arange(len(rank), dtype=rank.dtype)
    return -rank.to(log_p_BN.device).expand_as(log_p_BN)


@functools.cache
def halton_order(grid: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major indices of the grid's positions, in the order in which the Halton sequence first visits them.

    Bases are 2 for the first side and 3 for the second; sides of length 1 are ignored.
    """
    from scipy.stats import qmc

    sides = [side for side in grid if side > 1] or [1]
    points = qmc.Halton(len(sides), scramble=False)
    # The published order leaves out the first point of the sequence, the origin.
    points.fast_forward(1)
    met: dict[int, None] = {}
    while len(met) < math.prod(sides):
        places = np.floor(points.random(math.prod(sides)) * sides).astype(int)
        met |= dict.fromkeys(np.atleast_1d(np.ravel_multi_index(tuple(places.T), tuple(sides))).tolist())
    return tuple(met)


@dataclass(frozen=True)
class Reveal:
    """Each step draws all masked tokens, keeps those that come first in `order`, and masks the rest again."""

    order: Order

    def draw(
        self, model: Masked, label: Tensor | None, rng: CounterRNG, how: Sampling, x_BN: Tensor, known: Tensor | None
    ) -> Tensor:
        """Tokens (B, N) int64 from states `x_BN`, in which the `known` tokens are in place and the rest is [mask]."""
        size, grid = len(x_BN), model.grid or (model.tokens,)
        left = [model.tokens] * size if known is None else (known < 0).sum(dim=1).tolist()
        counts = _counts(how.steps, left)
        counts_BS = torch.tensor(counts, device=x_BN.device)
        t = torch.zeros(size, device=x_BN.device)
        for index in range(how.steps):
            if not any(each[index] for each in counts):
                continue
            # A single step counts as the last one: full guidance, no noise on the order.
            progress = index / (how.steps - 1) if how.steps > 1 else 1.0
            at = rng.with_step(index)
            predict = guided(precise(model.logits, how), how.guidance * progress, null=model.classes)
            log_p_BNK = predict(x_BN, t, label).log_softmax(dim=2)
            drawn_BN = sample_categorical(log_p_BNK.exp(), at.uniform("step", model.tokens))
            log_p_BN = log_p_BNK.gather(2, drawn_BN[..., None])[..., 0]
            score_BN = self.order(log_p_BN, how.own["temperature"] * (1 - progress), at, grid)
            score_BN = score_BN.masked_fill(x_BN != model.codes, -torch.inf)
            rank_BN = score_BN.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            x_BN = torch.where(rank_BN < counts_BS[:, index, None], drawn_BN, x_BN)
        return x_BN

    def nfe(self, model: Masked, how: Sampling) -> int:
        """Passes through the network that one image costs; guidance doubles all but the first of several steps."""
        made = [index for index, count in enumerate(reveal_counts(how.steps, model.tokens)) if count]
        return len(made) + (sum(how.steps == 1 or index > 0 for index in made) if how.guidance else 0)


def reveal_counts(steps: int, tokens: int) -> list[int]:
    """How many of N = `tokens` tokens each of S = `steps` steps reveals.

    At step i of 0 to S - 1 a fraction proportional to arccos(1 - i / (S - 1)), so that late steps reveal most: rounded,
    at least 1, and the last step reveals the rest. If this would leave less than 1 for the last step, the running total
    is rounded instead, and some steps reveal none.
    """
    if steps == 1:
        return [tokens]
    shares = np.arccos(np.linspace(1, 0, steps))
    shares = shares / shares.sum()
    counts = np.maximum((shares * tokens).round().astype(int), 1)
    counts[-1] += tokens - counts.sum()
    if counts[-1] < 1:
        # Nearly as many steps as tokens, or more: round the running total, so that some steps reveal none.
        counts = np.diff((shares.cumsum() * tokens).round().astype(int), prepend=0)
    return counts.tolist()


def _counts(steps: int, left: list[int]) -> list[list[int]]:
    """`reveal_counts` for B images with `left` tokens to reveal each: B lists of `steps` numbers."""
    found = {count: reveal_counts(steps, count) if count else [0] * steps for count in set(left)}
    return [found[count] for count in left]
