"""The base class of masked models, with its bound, and the interface of its samplers. Section 8 of docs/method.md.

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
    """A sampling algorithm for masked models, and its cost."""

    def draw(
        self, model: Any, label: Tensor | None, rng: CounterRNG, how: Sampling, x_BN: Tensor, known: Tensor | None
    ) -> Tensor:
        """Tokens (B, N) int64 from states `x_BN`, in which the `known` tokens are in place and the rest is [mask]."""
        ...

    def nfe(self, model: Any, how: Sampling) -> int:
        """Passes through the network that one image costs."""
        ...


class Knobs(Section):
    """The sampling parameters of masked models."""

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
    """States are the K codes and [mask]; the network is not given the time, since it sees how much is masked."""

    knobs = Knobs
    ways: ClassVar[Mapping[str, Sampler]]
    """Maps `sampler` in params.yaml to the sampler."""

    @abstractmethod
    def share_masked(self, t: Tensor) -> Tensor:
        """Fraction of tokens that are masked at times t from 0 (none) to 1 (all): shape of t."""

    def mask(self, tokens_BN: Tensor, share: Tensor, rng: CounterRNG) -> Tensor:
        """States (B, N): each token is masked independently with probability `share` (B,)."""
        masked_BN = rng.uniform("masked", self.tokens) < share[:, None]
        return torch.where(masked_BN, self.codes, tokens_BN)

    @torch.no_grad()
    def sample(self, label: Tensor | None, rng: CounterRNG, how: Sampling, known: Tensor | None = None) -> Tensor:
        """Tokens (B, N) int64, sampled from states that are [mask] everywhere except at `known` tokens."""
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
        """Upper bound on -log p(x), nats per token: (B,), of masked diffusion and of revealing tokens in random order.

        E_{n, M}[1 / n sum_{i in M} -log p(x_i | the tokens outside M)], with n uniform on 1 to N and M a random set of
        n masked tokens; estimated at `levels` stratified values of n per image.
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
