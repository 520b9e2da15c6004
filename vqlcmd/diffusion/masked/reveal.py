"""Samplers that reveal a given number of masked tokens at each step, in an order of their own.

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
"""(log p of the drawn tokens (B, N), scale of the noise, random numbers of the step, grid) -> (B, N), largest first."""


def by_confidence(log_p_BN: Tensor, noise: float, rng: CounterRNG, grid: tuple[int, ...]) -> Tensor:
    """The surest first (Chang et al. 2022), with Gumbel noise on how sure they are."""
    return log_p_BN + noise * -(-rng.uniform("choice", log_p_BN.shape[1]).log()).log()


def by_halton(log_p_BN: Tensor, noise: float, rng: CounterRNG, grid: tuple[int, ...]) -> Tensor:
    """Places of the grid far apart first (Besnier et al. 2025), the same ones for all images."""
    rank = torch.empty(len(halton_order(grid)), dtype=log_p_BN.dtype)
    rank[list(halton_order(grid))] = torch.arange(len(rank), dtype=rank.dtype)
    return -rank.to(log_p_BN.device).expand_as(log_p_BN)


@functools.cache
def halton_order(grid: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of the grid's places, row by row, in the order in which the Halton sequence first meets them.

    Bases are 2 for the first side and 3 for the second; a side of 1 counts as none.
    """
    from scipy.stats import qmc

    sides = [side for side in grid if side > 1] or [1]
    points = qmc.Halton(len(sides), scramble=False)
    # The sequence starts at the origin, which is a point of no base: the published order begins behind it.
    points.fast_forward(1)
    met: dict[int, None] = {}
    while len(met) < math.prod(sides):
        places = np.floor(points.random(math.prod(sides)) * sides).astype(int)
        met |= dict.fromkeys(np.atleast_1d(np.ravel_multi_index(tuple(places.T), tuple(sides))).tolist())
    return tuple(met)


@dataclass(frozen=True)
class Reveal:
    """Draw all masked tokens, keep the first few in the order, and mask the rest again."""

    order: Order

    def draw(
        self, model: Masked, label: Tensor | None, rng: CounterRNG, how: Sampling, x_BN: Tensor, known: Tensor | None
    ) -> Tensor:
        """Tokens (B, N) int64 from states (B, N) with what is `known` in place."""
        size, grid = len(x_BN), model.grid or (model.tokens,)
        left = [model.tokens] * size if known is None else (known < 0).sum(dim=1).tolist()
        counts = _counts(how.steps, left)
        counts_BS = torch.tensor(counts, device=x_BN.device)
        t = torch.zeros(size, device=x_BN.device)
        for index in range(how.steps):
            if not any(each[index] for each in counts):
                continue
            # One step alone is the last one: full guidance, and no noise on the choice.
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
        """Passes through the network that one image costs: the first of several steps needs no unguided one."""
        made = [index for index, count in enumerate(reveal_counts(how.steps, model.tokens)) if count]
        return len(made) + (sum(how.steps == 1 or index > 0 for index in made) if how.guidance else 0)


def reveal_counts(steps: int, tokens: int) -> list[int]:
    """How many of N tokens each step reveals: at least 1 and the rest in the last step, or with steps that reveal none.

    The share revealed at step i is proportional to arccos(i / (S - 1)) backwards, so that late steps reveal most.
    """
    if steps == 1:
        return [tokens]
    shares = np.arccos(np.linspace(1, 0, steps))
    shares = shares / shares.sum()
    counts = np.maximum((shares * tokens).round().astype(int), 1)
    counts[-1] += tokens - counts.sum()
    if counts[-1] < 1:
        # Nearly as many steps as tokens, or more: round the running total, and some steps have nothing to do.
        counts = np.diff((shares.cumsum() * tokens).round().astype(int), prepend=0)
    return counts.tolist()


def _counts(steps: int, left: list[int]) -> list[list[int]]:
    """`reveal_counts` for images with so many tokens `left` to reveal: B lists of `steps`."""
    found = {count: reveal_counts(steps, count) if count else [0] * steps for count in set(left)}
    return [found[count] for count in left]
