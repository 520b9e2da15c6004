"""A model of masked tokens: what it is, how it may be sampled, and its bound. Section 8 of docs/method.md.

Shapes: B images, N tokens, K codes. A state is a code, or K for [mask].
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from vqlcmd.diffusion.discrete import Discrete
from vqlcmd.params import Sampling
from vqlcmd.params.types import Section
from vqlcmd.rng import CounterRNG


class Sampler(Protocol):
    """A way to draw tokens from a masked model, and what it costs."""

    def draw(
        self, model: Any, label: Tensor | None, rng: CounterRNG, how: Sampling, x_BN: Tensor, known: Tensor | None
    ) -> Tensor:
        """Tokens (B, N) int64 from states (B, N), in which what is `known` stands and the rest is [mask]."""
        ...

    def nfe(self, model: Any, how: Sampling) -> int:
        """Passes through the network that one image costs."""
        ...


class Knobs(Section):
    """What sampling a masked model has of its own."""

    temperature: Annotated[
        float,
        Field(
            ge=0,
            le=1e6,
            allow_inf_nan=False,
            description="Of the Gumbel noise on what is revealed first; 0 takes the surest.",
        ),
    ]
    eta: Annotated[
        float, Field(ge=0, le=1, description="Of samplers that mask again: the chance, or its share of the largest.")
    ]


class Masked(Discrete):
    """States are the K codes and [mask]; the network is not told how many are masked, it sees that."""

    knobs = Knobs
    ways: ClassVar[Mapping[str, Sampler]]
    """`sampler` in params.yaml to what it does."""

    @abstractmethod
    def share_masked(self, t: Tensor) -> Tensor:
        """Share of tokens that are masked at times from 0 (clean) to 1 (all), like t."""

    def mask(self, tokens_BN: Tensor, share: Tensor, rng: CounterRNG) -> Tensor:
        """States (B, N): each token masked on its own, with chances (B,)."""
        masked_BN = rng.uniform("masked", self.tokens) < share[:, None]
        return torch.where(masked_BN, self.codes, tokens_BN)

    @torch.no_grad()
    def sample(self, label: Tensor | None, rng: CounterRNG, how: Sampling, known: Tensor | None = None) -> Tensor:
        """Tokens (B, N) int64 from all [mask]."""
        self.check(how)
        x_BN = torch.full((len(rng.rows), self.tokens), self.codes, device=rng.rows.device)
        if known is not None:
            x_BN = torch.where(known >= 0, known, x_BN)
        return self.ways[how.sampler].draw(self, label, rng, how, x_BN, known)

    def nfe(self, how: Sampling) -> int:
        """Passes through the network that one image costs."""
        return self.ways[how.sampler].nfe(self, how)

    @torch.no_grad()
    def bound(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, levels: int) -> Tensor:
        """Upper bound on -log p(x), nats per token: (B,). That of masked diffusion, and of tokens one by one, anyhow.

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
