"""MaskGIT (Chang et al. 2022), as Besnier & Chen (2023) trained it: all tokens from [mask], the surest first.

Section 8 of docs/method.md. Shapes: B images, N tokens, K codes.
"""

import math
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from vqlcmd.diffusion.discrete import Discrete
from vqlcmd.diffusion.guidance import guided
from vqlcmd.diffusion.markov import sample_categorical
from vqlcmd.params import ModelParams, Sampling
from vqlcmd.params.types import Section
from vqlcmd.rng import CounterRNG

SMOOTHING = 0.1


def share_masked(r: Tensor) -> Tensor:
    """arccos(r) / (pi / 2): 1 at r = 0, nothing at r = 1."""
    return torch.arccos(r) / (math.pi / 2)


class Knobs(Section):
    """What MaskGIT's sampling has of its own."""

    temperature: Annotated[
        float,
        Field(
            ge=0, allow_inf_nan=False, description="Of the Gumbel noise on what is revealed first; 0 takes the surest."
        ),
    ]


class MaskGIT(Discrete):
    """States are the K codes and [mask]; the network is not told how many are masked, it sees that."""

    betas = (0.9, 0.96)
    weight_decay = 1e-5
    knobs = Knobs

    def __init__(self, params: ModelParams, codebook_KD: Tensor, tokens: int, classes: int):
        super().__init__(params, codebook_KD, tokens, classes)
        self.weights = {"ce": 1.0}

    def forward(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, teacher: Any) -> dict[str, Tensor]:
        """Cross-entropy at all positions with smoothed labels, nats per token: (B,)."""
        ratio = share_masked(rng.stratified("time", self.batch_size))
        x_BN, t = self.noised(tokens_BN, ratio, rng)
        logits_BNK = self.logits(x_BN, t, self.drop_classes(label, rng))
        smooth = F.cross_entropy(logits_BNK.transpose(1, 2), tokens_BN, label_smoothing=SMOOTHING, reduction="none")
        return {"ce": smooth.mean(dim=1)}

    def noised(self, tokens_BN: Tensor, u: Tensor, rng: CounterRNG) -> tuple[Tensor, Tensor]:
        masked_BN = rng.uniform("masked", self.tokens) < u[:, None]
        return torch.where(masked_BN, self.codes, tokens_BN), torch.zeros_like(u)

    @torch.no_grad()
    def sample(self, label: Tensor | None, rng: CounterRNG, how: Sampling, known: Tensor | None = None) -> Tensor:
        """Tokens (B, N) int64: each step draws all, keeps the surest few, and masks the rest again."""
        self.check(how)
        size = len(rng.rows)
        x_BN = torch.full((size, self.tokens), self.codes, device=rng.rows.device)
        if known is not None:
            x_BN = torch.where(known >= 0, known, x_BN)
        left = [self.tokens] * size if known is None else (known < 0).sum(dim=1).tolist()
        counts = _counts(how.steps, left)
        counts_BS = torch.tensor(counts, device=rng.rows.device)
        t = torch.zeros(size, device=rng.rows.device)
        for index in range(how.steps):
            if not any(each[index] for each in counts):
                continue
            # One step alone is the last one: full guidance, and no noise on the choice.
            progress = index / (how.steps - 1) if how.steps > 1 else 1.0
            predict = guided(self.logits, how.guidance * progress, null=self.classes)
            log_p_BNK = predict(x_BN, t, label).log_softmax(dim=2)
            drawn_BN = sample_categorical(log_p_BNK.exp(), rng.with_step(index).uniform("step", self.tokens))
            gumbel_BN = -(-rng.with_step(index).uniform("choice", self.tokens).log()).log()
            confidence_BN = log_p_BNK.gather(2, drawn_BN[..., None])[..., 0]
            confidence_BN = confidence_BN + how.own["temperature"] * (1 - progress) * gumbel_BN
            confidence_BN = confidence_BN.masked_fill(x_BN != self.codes, -torch.inf)
            rank_BN = confidence_BN.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            x_BN = torch.where(rank_BN < counts_BS[:, index, None], drawn_BN, x_BN)
        return x_BN

    def nfe(self, how: Sampling) -> int:
        """Passes through the network that one image costs: the first of several steps needs no unguided one."""
        made = [index for index, count in enumerate(reveal_counts(how.steps, self.tokens)) if count]
        return len(made) + (sum(how.steps == 1 or index > 0 for index in made) if how.guidance else 0)

    @torch.no_grad()
    def bound(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, levels: int) -> Tensor:
        """Upper bound on -log p(x), nats per token: (B,). That of the model that reveals tokens one by one, anyhow.

        -log p(x) <= E over orders of the sum over places; with n tokens left, any of them is the next one.
        """
        total = torch.zeros(len(tokens_BN), device=tokens_BN.device)
        for level in range(levels):
            at = rng.with_step(level)
            left = ((level + at.uniform("level")) / levels * self.tokens).ceil().clamp(1, self.tokens)
            rank_BN = at.uniform("order", self.tokens).argsort(dim=1).argsort(dim=1)
            masked_BN = rank_BN < left[:, None]
            x_BN = torch.where(masked_BN, self.codes, tokens_BN)
            logits_BNK = self.logits(x_BN, torch.zeros_like(left), label)
            nats_BN = F.cross_entropy(logits_BNK.transpose(1, 2), tokens_BN, reduction="none")
            total = total + (nats_BN * masked_BN).sum(dim=1) / left / levels
        return total

    def alpha_bar(self, u: Tensor) -> Tensor:
        return 1 - u.double()


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
