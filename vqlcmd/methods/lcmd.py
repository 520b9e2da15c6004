"""VQ-LCMD: continuous diffusion over learned token embeddings, kept from collapsing by consistency matching.

CSDM, CDCD and every ablation of the paper are this method with other components and loss weights.
Shapes: B images, N tokens, D embedding size, K codes. Sections 3 to 6 of docs/method.md.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from vqlcmd.diffusion import collapse, gaussian, losses
from vqlcmd.diffusion.consistency import STEPS, TIMES, Noised
from vqlcmd.diffusion.distillation import Guide, consistency
from vqlcmd.diffusion.embedding import DROPPING, build_embedding
from vqlcmd.diffusion.guidance import guided, precise, tempered, with_known_tokens
from vqlcmd.diffusion.method import Method
from vqlcmd.diffusion.schedule import Schedule, build_schedule
from vqlcmd.diffusion.transformer import Transformer
from vqlcmd.diffusion.weighting import WEIGHTINGS
from vqlcmd.params import ModelParams, Sampling
from vqlcmd.params.types import Positive, Section
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.machine import autocast


@dataclass(frozen=True)
class Sampler:
    """The step from z_t to z_s, and whether tokens are predicted at the clean end or already one step before it."""

    step: Callable[[Schedule, Tensor, Tensor, Tensor, Tensor, Callable[[], Tensor]], Tensor]
    looks_at_the_end: bool = True


SAMPLERS = {
    "ancestral": Sampler(lambda schedule, z, psi, s, t, eps: gaussian.ancestral_step(schedule, z, psi, s, t, eps())),
    "ddim": Sampler(lambda schedule, z, psi, s, t, eps: gaussian.ddim_step(schedule, z, psi, s, t)),
    "consistency": Sampler(lambda schedule, z, psi, s, t, eps: gaussian.diffuse(schedule, psi, s, eps()), False),
}


class Knobs(Section):
    """The sampling parameters of VQ-LCMD."""

    score_temperature: Annotated[Positive, Field(description="Of the predictions; below 1, samples are more typical.")]


class LCMD(Method):
    """VQ-LCMD on images of N = `tokens` tokens from a VQGAN with codebook `codebook_KD`; `classes` is 0 for none."""

    knobs, samplers = Knobs, tuple(SAMPLERS)
    built_by = (
        *("s", "schedule", "weighting", "self_conditioning", "embedding", "embedding_dim", "network"),
        *("likelihood", "drop", "dropping"),
    )

    def __init__(self, params: ModelParams, codebook_KD: Tensor, tokens: int, classes: int):
        super().__init__()
        net = params.network
        self.tokens, self.classes, self.drop, self.class_drop = tokens, classes, params.drop, params.train.class_drop
        self.batch_size = params.train.batch_size
        weights = {"rec": params.lambda_rec, "diff": params.lambda_diff, "cm": params.lambda_cm, "ce": params.lambda_ce}
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.schedule = build_schedule(shift=params.s, **params.schedule.model_dump())
        self.weighting = WEIGHTINGS[params.weighting](self.schedule)
        if self.weighting.learns:
            self.weights["warp"] = 1.0
        self.consistency_step = STEPS[params.consistency_step]
        self.consistency_time = TIMES[params.consistency_time]
        self.consistency_reaches_table = params.consistency_gradient == "full"
        self.drop_reconstruction = params.drop_reconstruction
        self.dropping = DROPPING[params.dropping]
        self.embedding = build_embedding(params.embedding, codebook_KD, params.embedding_dim, params.train.init_std)
        self.network = Transformer(
            tokens=tokens,
            inputs=params.embedding_dim,
            codes=len(codebook_KD),
            classes=classes,
            layers=net.layers,
            heads=net.heads,
            width=net.width,
            dropout=net.dropout,
            positions=net.positions,
        )
        self.likelihood = params.likelihood
        self.self_conditioning = params.self_conditioning
        # Created last and only where it is used, so that it does not change the initial values of other weights.
        self.previous = _no_effect(params.embedding_dim) if params.self_conditioning else None
        self.guide: Guide | None = None

    def forward(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, teacher: Self) -> dict[str, Tensor]:
        """The loss terms with a weight above 0, per image: {name: (B,)}. `teacher` is the EMA of this model."""
        if self.guide is not None:
            label = self.drop_classes(label, rng)
            u = rng.stratified("time", self.batch_size)
            return {"cd": consistency(self.guide, self.logits, teacher.logits, tokens_BN, label, u, rng)}
        psi_BND = self.embedding(tokens_BN)
        rng = rng.prefetch(**self._draws(psi_BND.shape[2]))
        label = self.drop_classes(label, rng)
        u = rng.stratified("time", self.batch_size)
        t, start = self.weighting.time(u), torch.full_like(u, self.schedule.start, dtype=torch.float64)

        now = self._noised(psi_BND, t, rng, "")
        terms = {}
        if "rec" in self.weights:
            z_0 = self._noised(psi_BND, start, rng, "_rec", drops=self.drop_reconstruction).z
            # One pass for z_t and z_0.
            z, times = torch.cat([now.z, z_0]), torch.cat([t, start])
            labels = None if label is None else torch.cat([label, label])
            before = self._first_look(z, times, labels, rng)
            student_t, student_0 = self.logits(z, times, labels, before).chunk(2)
            terms["rec"] = losses.cross_entropy(student_0, tokens_BN)
        else:
            before = self._first_look(now.z, t, label, rng)
            student_t = self.logits(now.z, t, label, before)
        if "diff" in self.weights:
            error = losses.squared_error(psi_BND, self.psi_hat(student_t))
            terms["diff"] = self.weighting.weight(t).to(error.dtype) * error
        if "cm" in self.weights:
            s = self.consistency_time(self.schedule, t, rng.uniform("earlier_time").double())
            before = None if before is None else before[: len(s)]
            student = student_t
            if not self.consistency_reaches_table:
                student = self.logits(now.z.detach(), t, label, before)
            terms["cm"] = losses.consistency(teacher.teacher_logits(now, s, label, rng, before), student)
        if "ce" in self.weights:
            terms["ce"] = losses.cross_entropy(student_t, tokens_BN)
        if "warp" in self.weights:
            terms["warp"] = self.weighting.error(t, losses.cross_entropy(student_t.detach(), tokens_BN))
        return terms

    def learn_from(self, teacher: Any, steps: int) -> None:
        """From now on `forward` distils the DDIM sampler of `teacher`, which takes `steps` steps. Section 5.

        Starts from the teacher's weights and freezes the embedding table. ConfigError with self-conditioning.
        """
        if self.previous is not None:
            raise ConfigError("a model with self-conditioning cannot be distilled: set distill.teacher to null")
        self.load_state_dict(teacher.state_dict())
        for fixed in (self.embedding, self.weighting):
            fixed.requires_grad_(False)
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=self.table.device)
        times = teacher.weighting.steps(u)
        self.guide = Guide(teacher.logits, teacher.embedding, teacher.psi_hat, teacher.schedule, times)
        self.weights = {"cd": 1.0}

    @torch.no_grad()
    def teacher_logits(
        self, now: Noised, s: Tensor, label: Tensor | None, rng: CounterRNG, before: Tensor | None
    ) -> Tensor:
        """This model's logits, as the teacher, at z_s, which is one `consistency_step` from z_t: (B, N, K).

        `before` (B, N, D) is the previous prediction that the student was conditioned on, None without
        self-conditioning; the teacher gets the same.
        """

        def guess(z_BND: Tensor, t: Tensor) -> Tensor:
            return self.psi_hat(self.logits(z_BND, t, label, before))

        z_s = self.consistency_step.move(self.schedule, now, s, guess, rng)
        return self.logits(z_s, s, label, before)

    @torch.no_grad()
    def sample(self, label: Tensor | None, rng: CounterRNG, how: Sampling, known: Tensor | None = None) -> Tensor:
        """Tokens (B, N) int64 for classes (B,): the most probable ones in the last prediction."""
        self.check(how)
        z, before = rng.normal("prior", self.tokens, self.table.shape[1]), None

        def look(z_BND: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
            # Guidance asks about every image twice.
            return self.logits(z_BND, t, label, None if before is None else before.repeat(len(z_BND) // size, 1, 1))

        predict = guided(precise(look, how), how.guidance, null=self.classes)
        # Models that were saved before there was a temperature have none.
        predict = with_known_tokens(tempered(predict, how.own.get("score_temperature", 1.0)), known)
        sampler, size = SAMPLERS[how.sampler], len(rng.rows)
        u = torch.linspace(1, 0, how.steps + 1, dtype=torch.float64, device=rng.rows.device)
        times = self.weighting.steps(u)
        times_SB = times[: self._looks(how), None].expand(-1, size)
        for index, (t, s) in enumerate(pairwise(times_SB)):
            psi_hat = self.psi_hat(predict(z, t, label))
            noise = partial(rng.with_step(index).normal, "step", *z.shape[1:])
            z, before = sampler.step(self.schedule, z, psi_hat, s, t, noise), psi_hat
        return predict(z, times_SB[-1], label).argmax(dim=2)

    def nfe(self, how: Sampling) -> int:
        """Passes through the network that one image costs."""
        return self._looks(how) * (2 if how.guidance else 1)

    @torch.no_grad()
    def bound(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, levels: int) -> Tensor:
        """Upper bound on -log p(x), nats per token, estimated at `levels` noise levels per image: (B,). Section 6."""
        psi = self.embedding(tokens_BN)
        size = len(tokens_BN)
        start = torch.full((size,), self.schedule.start, dtype=torch.float64, device=tokens_BN.device)
        z_0 = gaussian.diffuse(self.schedule, psi, start, rng.normal("rec", *psi.shape[1:]))
        total = gaussian.prior_kl(self.schedule, psi) + losses.cross_entropy(self._look(z_0, start, label), tokens_BN)
        spread = self.schedule.log_snr_max - self.schedule.log_snr_min
        for level in range(levels):
            u = (level + rng.with_step(level).uniform("level").double()) / levels
            log_snr = self.schedule.log_snr_min + spread * u
            t = self.schedule.time(log_snr)
            z_t = gaussian.diffuse(self.schedule, psi, t, rng.with_step(level).normal("eps", *psi.shape[1:]))
            error = losses.squared_error(psi, self.psi_hat(self._look(z_t, t, label)))
            total = total + 0.5 * spread * log_snr.exp().to(error.dtype) * error / levels
        return total

    @torch.no_grad()
    def diagnostics(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG) -> dict[str, float]:
        """Section 7: collapse statistics of the embedding table, and the cross-entropy at five times."""
        table_KD = self.table
        found = collapse.statistics(table_KD, self.schedule, rng.first_rows(len(table_KD)))
        psi = self.embedding(tokens_BN)
        for share in (0.1, 0.25, 0.5, 0.75, 0.9):
            t = self.schedule.between(torch.full((len(tokens_BN),), share, device=tokens_BN.device))
            z_t = gaussian.diffuse(self.schedule, psi, t, rng.normal("diagnostics", *psi.shape[1:]))
            found[f"ce_{share}"] = float(losses.cross_entropy(self._look(z_t, t, label), tokens_BN).mean())
        return found

    def _draws(self, dim: int) -> dict[str, int]:
        """{draw: count} of the random numbers per image that a training step prefetches."""
        counts = {"class_drop": 1, "time": 1, "earlier_time": 1}
        for which in ("", "_rec") if "rec" in self.weights else ("",):
            counts |= {f"drop_ratio{which}": 1, f"drop{which}": self.tokens, f"eps{which}": self.tokens * dim}
        return counts

    def _noised(self, psi_BND: Tensor, t: Tensor, rng: CounterRNG, which: str, *, drops: bool = True) -> Noised:
        if drops:
            ratio = self.dropping(self.drop, rng.uniform(f"drop_ratio{which}"), t)
            dropped_BN = rng.uniform(f"drop{which}", self.tokens) < ratio[:, None]
            psi_BND = self.embedding.masked(psi_BND, dropped_BN)
        eps_BND = rng.normal(f"eps{which}", *psi_BND.shape[1:])
        return Noised(gaussian.diffuse(self.schedule, psi_BND, t, eps_BND), psi_BND, eps_BND, t)

    def logits(self, z_BND: Tensor, t: Tensor, label: Tensor | None, before_BND: Tensor | None = None) -> Tensor:
        """Logits of P(x_i = k | z_t): the network's, plus log q(z_t | x) with `likelihood`: float32 (B, N, K).

        `before_BND` is the previous prediction, for self-conditioning.
        """
        logits_BNK = self.network(self._input(z_BND, before_BND), t, label)
        if not self.likelihood:
            return logits_BNK
        # The mean share of dropped tokens: `random` draws it anew for each image.
        dropped_B = self.dropping(self.drop, torch.full_like(t, 0.5), t)
        mask_D = self.embedding.mask
        return logits_BNK + gaussian.log_likelihood(self.schedule, self.table, mask_D, z_BND, t, dropped_B)

    def _input(self, z_BND: Tensor, before_BND: Tensor | None) -> Tensor:
        """The network's input: z, plus a linear map of its previous prediction with self-conditioning: (B, N, D)."""
        return z_BND if self.previous is None or before_BND is None else z_BND + self.previous(before_BND)

    @torch.no_grad()
    def _first_look(self, z_BND: Tensor, t: Tensor, label: Tensor | None, rng: CounterRNG) -> Tensor | None:
        """Predictions at z for a random fraction of the images, 0 for the others; None without self-conditioning."""
        if self.previous is None:
            return None
        chosen = rng.uniform("self_conditioning") < self.self_conditioning
        psi_hat = self.psi_hat(self.logits(z_BND, t, label))
        return torch.where(chosen.repeat(len(z_BND) // len(chosen))[:, None, None], psi_hat, 0.0)

    def _look(self, z_BND: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        """Logits at z; with self-conditioning those of a second pass, which gets the first one's prediction."""
        first = None if self.previous is None else self.psi_hat(self.logits(z_BND, t, label))
        return self.logits(z_BND, t, label, first)

    def _looks(self, how: Sampling) -> int:
        """Number of times at which a sampler makes a prediction."""
        return how.steps + SAMPLERS[how.sampler].looks_at_the_end

    def alpha_bar(self, u: Tensor) -> Tensor:
        return self.schedule.alpha(self.schedule.between(u)) ** 2

    def embedding_parameters(self) -> Iterable[nn.Parameter]:
        return self.embedding.parameters()

    @property
    def table(self) -> Tensor:
        return self.embedding.table

    def psi_hat(self, logits_BNK: Tensor) -> Tensor:
        """The expected embedding, sum_k P(x_i = k) e_k: (B, N, D). Equation 2."""
        with autocast(logits_BNK.device.type, enabled=False):
            return logits_BNK.float().softmax(dim=2) @ self.table


def _no_effect(dim: int) -> nn.Linear:
    """A linear map from D to D dimensions, without bias, initialised to 0."""
    layer = nn.Linear(dim, dim, bias=False)
    nn.init.zeros_(layer.weight)
    return layer
