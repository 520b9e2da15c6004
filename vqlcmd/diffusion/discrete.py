"""Base classes of the methods whose states are discrete. Section 8 of docs/method.md.

Shapes: B images, N tokens, D embedding size, K codes.
"""

from abc import abstractmethod
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

from vqlcmd.diffusion import collapse, losses
from vqlcmd.diffusion.guidance import guided, precise, with_known_tokens
from vqlcmd.diffusion.markov import Kernel, kl, one_hot, sample_categorical
from vqlcmd.diffusion.method import Method
from vqlcmd.diffusion.transformer import Transformer
from vqlcmd.params import ModelParams, Sampling
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)


class Discrete(Method):
    """The trunk of VQ-LCMD with an input vector for each state: K codes, then `extra_states` others, such as [mask]."""

    built_by = ("embedding_dim", "network")

    def __init__(
        self,
        params: ModelParams,
        codebook_KD: Tensor,
        tokens: int,
        classes: int,
        *,
        extra_states: int = 1,
        causal: bool = False,
    ):
        super().__init__()
        net = params.network
        self.tokens, self.classes, self.class_drop = tokens, classes, params.train.class_drop
        self.batch_size, self.codes = params.train.batch_size, len(codebook_KD)
        self.embedding = nn.Embedding(self.codes + extra_states, params.embedding_dim)
        nn.init.normal_(self.embedding.weight, std=params.train.init_std)
        self.network = Transformer(
            tokens=tokens,
            inputs=params.embedding_dim,
            codes=self.codes,
            classes=classes,
            layers=net.layers,
            heads=net.heads,
            width=net.width,
            dropout=net.dropout,
            positions=net.positions,
            causal=causal,
        )

    def logits(self, x_BN: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """Logits (B, N, K) at states (B, N), times (B,) in [0, 1]."""
        return self.network(self.embedding(x_BN), t, label)

    @abstractmethod
    def noised(self, tokens_BN: Tensor, u: Tensor, rng: CounterRNG) -> tuple[Tensor, Tensor]:
        """States (B, N) and the network's times (B,) at the fractions u (B,) of the way from clean to noise."""

    @torch.no_grad()
    def diagnostics(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG) -> dict[str, float]:
        """Section 7: statistics of the input table, and the cross-entropy at five times."""
        found = collapse.geometry(self.table)
        for step, share in enumerate(SHARES):
            u = torch.full((len(tokens_BN),), share, device=tokens_BN.device)
            x_BN, t = self.noised(tokens_BN, u, rng.with_step(step))
            found[f"ce_{share}"] = float(losses.cross_entropy(self.logits(x_BN, t, label), tokens_BN).mean())
        return found

    def embedding_parameters(self) -> Iterable[nn.Parameter]:
        """Empty: the table is an ordinary input layer here, and not the target of a loss."""
        return ()

    @property
    def table(self) -> Tensor:
        return self.embedding.weight[: self.codes]


class DiscreteDiffusion(Discrete):
    """A Markov chain and a network that predicts x_0: D3PM and VQ-Diffusion, which differ in the reverse step.

    `keep` and `mask` are the cumulative probabilities that define the chain: see `markov.Kernel`.
    """

    built_by = (*Discrete.built_by, "discrete.timesteps")

    def __init__(
        self,
        params: ModelParams,
        codebook_KD: Tensor,
        tokens: int,
        classes: int,
        *,
        keep: Tensor,
        mask: Tensor,
        extra_states: int,
    ):
        super().__init__(params, codebook_KD, tokens, classes, extra_states=extra_states)
        self.kernel = Kernel(keep, mask, self.codes)

    @abstractmethod
    def reverse(self, p_BNK: Tensor, x_BN: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """p(x_s | x_t) from the network's p(x_0 | x_t): (B, N, K + 1), not always normalised."""

    def step(self, p_BNK: Tensor, x_BN: Tensor, s: Tensor, t: Tensor, u_BN: Tensor) -> Tensor:
        """x_s (B, N), drawn from `reverse` with uniform numbers (B, N)."""
        return sample_categorical(self.reverse(p_BNK, x_BN, s, t), u_BN)

    def predicted(self, logits_BNK: Tensor, how: Sampling) -> Tensor:
        """p(x_0 | x_t) as the sampler uses it: (B, N, K), not always normalised."""
        return logits_BNK.softmax(dim=2)

    def network_time(self, t: Tensor) -> Tensor:
        """Steps 1 to T as the network's time in (0, 1]."""
        return t.float() / self.kernel.timesteps

    def noised(self, tokens_BN: Tensor, u: Tensor, rng: CounterRNG) -> tuple[Tensor, Tensor]:
        t = self.steps_at(u)
        return self.diffuse(tokens_BN, t, rng), self.network_time(t)

    def steps_at(self, u: Tensor) -> Tensor:
        """Step numbers 1 to T for u in (0, 1]: (B,) int64."""
        return (u * self.kernel.timesteps).ceil().long().clamp(1, self.kernel.timesteps)

    def diffuse(self, tokens_BN: Tensor, t: Tensor, rng: CounterRNG) -> Tensor:
        """x_t ~ q(x_t | x_0) at steps t (B,): (B, N)."""
        return self.kernel.diffuse(
            tokens_BN, t, rng.uniform("transition", self.tokens), rng.uniform("code", self.tokens)
        )

    def divergence(self, logits_BNK: Tensor, tokens_BN: Tensor, x_BN: Tensor, t: Tensor) -> Tensor:
        """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), averaged over tokens: (B,). -log p(x_0 | x_1) at t = 1."""
        exact = self.kernel.posterior(one_hot(tokens_BN, self.codes), x_BN, t - 1, t)
        return kl(exact, self.reverse(logits_BNK.softmax(dim=2), x_BN, t - 1, t))

    def check(self, how: Sampling, infill: bool = False) -> None:
        """ConfigError as in `Method.check`, or where there are more sampling steps than the chain has."""
        super().check(how, infill)
        if how.steps > self.kernel.timesteps:
            raise ConfigError(
                f"sample_steps {how.steps} is more than the {self.kernel.timesteps} steps of the chain, "
                "discrete.timesteps: lower the one or train with more of the other"
            )

    @torch.no_grad()
    def sample(self, label: Tensor | None, rng: CounterRNG, how: Sampling, known: Tensor | None = None) -> Tensor:
        """Tokens (B, N) int64 for classes (B,), in `how.steps` strides over the chain."""
        self.check(how)
        predict = with_known_tokens(guided(precise(self.logits, how), how.guidance, null=self.classes), known)
        device, size, last = rng.rows.device, len(rng.rows), self.kernel.timesteps
        times_SB = torch.linspace(last, 0, how.steps + 1, device=device).round().long()[:, None].expand(-1, size)
        x_BN = self.kernel.prior(rng.uniform("prior", self.tokens), rng.uniform("prior_code", self.tokens))
        for index, (t, s) in enumerate(pairwise(times_SB)):
            p_BNK = self.predicted(predict(x_BN, self.network_time(t), label), how)
            x_BN = self.step(p_BNK, x_BN, s, t, rng.with_step(index).uniform("step", self.tokens))
        return x_BN

    def nfe(self, how: Sampling) -> int:
        """Passes through the network that one image costs."""
        return how.steps * (2 if how.guidance else 1)

    @torch.no_grad()
    def bound(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, levels: int) -> Tensor:
        """Upper bound on -log p(x), nats per token, estimated at `levels` stratified steps per image: (B,)."""
        total = self.kernel.prior_kl(tokens_BN)
        for level in range(levels):
            at = rng.with_step(level)
            t = self.steps_at((level + at.uniform("level")) / levels)
            x_BN = self.diffuse(tokens_BN, t, at)
            logits_BNK = self.logits(x_BN, self.network_time(t), label)
            total = total + self.kernel.timesteps / levels * self.divergence(logits_BNK, tokens_BN, x_BN, t)
        return total

    def alpha_bar(self, u: Tensor) -> Tensor:
        return self.kernel.keep[(u * self.kernel.timesteps).round().long()]
