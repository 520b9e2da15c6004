"""Discrete flow matching (Gat et al. 2024, Campbell et al. 2024) along mixture paths, from [mask] or uniform codes.

Section 8 of docs/method.md. Shapes: B images, N tokens, K codes. t runs from 0 (clean) to 1 (source); tau = 1 - t.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from vqlcmd.diffusion import losses
from vqlcmd.diffusion.discrete import Discrete
from vqlcmd.diffusion.guidance import guided, precise, with_known_tokens
from vqlcmd.diffusion.markov import one_hot, sample_categorical
from vqlcmd.params import ModelParams, Sampling
from vqlcmd.params.types import Section
from vqlcmd.rng import CounterRNG


@dataclass(frozen=True)
class Polynomial:
    """kappa(tau) = tau^power, the fraction of tokens that come from the data; rises from 0 to 1."""

    power: int

    def kappa(self, tau: Tensor) -> Tensor:
        """tau^power: shape of tau, float64."""
        return tau.double() ** self.power

    def rate(self, tau: Tensor) -> Tensor:
        """kappa'(tau) / (1 - kappa(tau)) for tau < 1: shape of tau, float64."""
        return self.power * tau.double() ** (self.power - 1) / (1 - self.kappa(tau))


SCHEDULES = {"linear": Polynomial(1), "quadratic": Polynomial(2), "cubic": Polynomial(3)}
"""Valid values of `discrete.schedule.flow_matching`."""


@dataclass(frozen=True)
class Source(ABC):
    """The distribution at which paths start, over K = `codes` codes and `extra_states` other states."""

    codes: int
    extra_states: int

    @abstractmethod
    def draw(self, u_BN: Tensor) -> Tensor:
        """States (B, N) int64, drawn with uniform numbers (B, N) in (0, 1)."""

    @abstractmethod
    def posterior(self, p_BNK: Tensor, x_BN: Tensor) -> Tensor:
        """p(x | x_t): (B, N, K), the network's prediction `p_BNK` except where the state itself determines x."""


@dataclass(frozen=True)
class Mask(Source):
    """[mask] everywhere, so a state that is not [mask] is the data's token."""

    extra_states: int = 1

    def draw(self, u_BN: Tensor) -> Tensor:
        return torch.full_like(u_BN, self.codes, dtype=torch.int64)

    def posterior(self, p_BNK: Tensor, x_BN: Tensor) -> Tensor:
        sure_BNK = one_hot(x_BN.clamp_max(self.codes - 1), self.codes, p_BNK.dtype)
        return torch.where((x_BN == self.codes)[..., None], p_BNK, sure_BNK)


@dataclass(frozen=True)
class Uniform(Source):
    """Codes drawn uniformly."""

    extra_states: int = 0

    def draw(self, u_BN: Tensor) -> Tensor:
        return (u_BN * self.codes).long()

    def posterior(self, p_BNK: Tensor, x_BN: Tensor) -> Tensor:
        return p_BNK


SOURCES: dict[str, type[Mask] | type[Uniform]] = {"mask": Mask, "uniform": Uniform}
"""Valid values of `discrete.source`."""


def exact(schedule: Polynomial, tau: Tensor, later: Tensor) -> float:
    """Probability of a jump to the data's token between tau and `later`, if the prediction is constant in between."""
    now, then = float(schedule.kappa(tau)), float(schedule.kappa(later))
    return (then - now) / (1 - now)


def euler(schedule: Polynomial, tau: Tensor, later: Tensor) -> float:
    """1 - exp(-h rate(tau)) for a step h = later - tau: the rate is held constant too. 1 in the last step."""
    return 1.0 if later >= 1 else -math.expm1(-float((later - tau) * schedule.rate(tau)))


SAMPLERS: dict[str, Callable[[Polynomial, Tensor, Tensor], float]] = {"ancestral": exact, "euler": euler}
"""Valid values of `sampler`."""


class Knobs(Section):
    """The sampling parameters of flow matching."""

    corrector: Annotated[
        float,
        Field(ge=0, le=1e3, allow_inf_nan=False, description="How often a token is drawn anew on the way, on average."),
    ]


class FlowMatching(Discrete):
    """A token of x_t is the data's with probability kappa(tau), else the source's; cross-entropy at all positions."""

    knobs = Knobs
    samplers = tuple(SAMPLERS)
    schedules = SCHEDULES
    built_by = (*Discrete.built_by, "discrete.timesteps", "discrete.source", "discrete.schedule.flow_matching")

    def __init__(self, params: ModelParams, codebook_KD: Tensor, tokens: int, classes: int):
        source = SOURCES[params.discrete.source](len(codebook_KD))
        super().__init__(params, codebook_KD, tokens, classes, extra_states=source.extra_states)
        self.source, self.schedule = source, SCHEDULES[params.discrete.schedule["flow_matching"]]
        # The bound's integral ends at tau = 1 - end, where the remaining tokens are drawn at once.
        self.end = 1 / params.discrete.timesteps
        self.weights = {"ce": 1.0}

    def forward(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, teacher: Any) -> dict[str, Tensor]:
        """{"ce": -log p(x | x_t)} at one time per image, nats per token: (B,)."""
        x_BN, t = self.noised(tokens_BN, rng.stratified("time", self.batch_size), rng)
        return {"ce": losses.cross_entropy(self.logits(x_BN, t, self.drop_classes(label, rng)), tokens_BN)}

    def noised(self, tokens_BN: Tensor, u: Tensor, rng: CounterRNG) -> tuple[Tensor, Tensor]:
        source_BN = self.source.draw(rng.uniform("source", self.tokens))
        kept_BN = rng.uniform("kept", self.tokens) < self.schedule.kappa(1 - u.double())[:, None]
        return torch.where(kept_BN, tokens_BN, source_BN), u.float()

    @torch.no_grad()
    def sample(self, label: Tensor | None, rng: CounterRNG, how: Sampling, known: Tensor | None = None) -> Tensor:
        """Tokens (B, N) int64 for classes (B,), in `how.steps` steps from the source to the data."""
        self.check(how)
        predict = with_known_tokens(guided(precise(self.logits, how), how.guidance, null=self.classes), known)
        chance, corrector = SAMPLERS[how.sampler], how.own["corrector"]
        x_BN = self.source.draw(rng.uniform("prior", self.tokens))
        for index, (tau, later) in enumerate(pairwise(torch.linspace(0, 1, how.steps + 1, dtype=torch.float64))):
            at = rng.with_step(index)
            t = torch.full((len(x_BN),), 1 - float(tau), device=x_BN.device)
            p_BNK = self.source.posterior(predict(x_BN, t, label).softmax(dim=2), x_BN)
            data_BN = sample_categorical(p_BNK, at.uniform("step", self.tokens))
            moves_BN = at.uniform("move", self.tokens) < chance(self.schedule, tau, later)
            x_BN = torch.where(moves_BN, data_BN, x_BN)
            if corrector:
                now, then = float(self.schedule.kappa(tau)), float(self.schedule.kappa(later))
                source_BN = self.source.draw(at.uniform("source", self.tokens))
                anew_BN = torch.where(at.uniform("kept", self.tokens) < then, data_BN, source_BN)
                chosen_BN = at.uniform("anew", self.tokens) < -math.expm1(-corrector * (then - now))
                x_BN = torch.where(chosen_BN, anew_BN, x_BN)
        return x_BN

    def nfe(self, how: Sampling) -> int:
        """Passes through the network that one image costs."""
        return how.steps * (2 if how.guidance else 1)

    @torch.no_grad()
    def bound(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, levels: int) -> Tensor:
        """Upper bound on -log p(x), nats per token: (B,), with an integral estimated at `levels` stratified times.

        -log p(x | x_tau) at tau = 1 - end, plus the KL of the paths up to there. Section 8 of docs/method.md.
        """
        end = torch.full((len(tokens_BN),), self.end, device=tokens_BN.device)
        nats_BN, _, _ = self._answer(tokens_BN, end, label, rng)
        total = nats_BN.mean(dim=1)
        for level in range(levels):
            at = rng.with_step(level + 1)
            tau = (1 - self.end) * (level + at.uniform("level").double()) / levels
            nats_BN, stays_BN, right_BN = self._answer(tokens_BN, 1 - tau, label, at)
            # In units of kappa' / (1 - kappa): the model jumps to code k at rate p(k). The process that knows x jumps
            # to x at rate 1, and does not jump once it is there.
            excess_BN = torch.where(right_BN, 1.0, nats_BN) - stays_BN
            rate = (1 - self.end) / levels * self.schedule.rate(tau).to(excess_BN.dtype)
            total = total + rate * excess_BN.mean(dim=1)
        return total

    def _answer(
        self, tokens_BN: Tensor, t: Tensor, label: Tensor | None, rng: CounterRNG
    ) -> tuple[Tensor, Tensor, Tensor]:
        """At x_t drawn at times t (B,): -log p(x | x_t), p(x_t | x_t) (0 for [mask]) and x_t == x: (B, N) each."""
        x_BN, time = self.noised(tokens_BN, t, rng)
        p_BNK = self.source.posterior(self.logits(x_BN, time, label).softmax(dim=2), x_BN)
        tiny = torch.finfo(p_BNK.dtype).tiny
        nats_BN = -p_BNK.gather(2, tokens_BN[..., None])[..., 0].clamp_min(tiny).log()
        code_BN = x_BN.clamp_max(self.codes - 1)
        stays_BN = p_BNK.gather(2, code_BN[..., None])[..., 0].masked_fill(x_BN != code_BN, 0.0)
        return nats_BN, stays_BN, x_BN == tokens_BN

    def alpha_bar(self, u: Tensor) -> Tensor:
        return self.schedule.kappa(1 - u)
