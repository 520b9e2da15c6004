"""On a distribution small enough to list, with its exact posterior as the network, sampling and bound are exact."""

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.factory import build, sampling
from vqlcmd.diffusion import gaussian, losses
from vqlcmd.diffusion.schedule import SCHEDULES, Schedule, build_schedule
from vqlcmd.rng import CounterRNG

N, K = 3, 4
STATES = torch.cartesian_prod(*[torch.arange(K)] * N)
# Neighbours tend to be equal, one code is rare: correlated, with all 64 states possible.
LOGITS = 2.2 * (STATES[:, 0] == STATES[:, 1]) + 2.2 * (STATES[:, 1] == STATES[:, 2]) - 0.8 * (STATES == 3).sum(dim=1)
P = LOGITS.double().softmax(dim=0)
ENTROPY = float(torch.special.entr(P).sum()) / N
# Far apart at the clean end: half the distance is many sigmas, so that the tokens are determined there.
TABLE = torch.tensor([[1.5, 0.0], [0.0, 1.5], [-1.5, 0.0], [0.3, -1.2]])
SHIFT = -1.0


class Posterior(nn.Module):
    """log p(x_i = k | z_t) by listing all x: softmax over states of log p(x) + log N(z_t; alpha psi(x), sigma^2)."""

    def __init__(self, schedule: Schedule):
        super().__init__()
        self.schedule = schedule
        # (states, N * K): which code stands where.
        self.places = F.one_hot(STATES, K).flatten(1).float()

    def forward(self, z_BND: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        alpha, sigma = (f(t).float()[:, None, None] for f in (self.schedule.alpha, self.schedule.sigma))
        scores_BNK = -0.5 * ((alpha * TABLE.square().sum(dim=1) - 2 * z_BND @ TABLE.T) * alpha / sigma**2)
        states = (scores_BNK.flatten(1) @ self.places.T + P.log().float()).softmax(dim=1)
        return (states @ self.places).clamp_min(1e-30).log().view(-1, N, K)


def method(
    *,
    name: str = "cosine",
    shift: float | None = None,
    believed: float | None = None,
    log_snr_min: float = -12.0,
    log_snr_max: float = 6.0,
    **options: Any,
) -> Any:
    """VQ-LCMD with the exact posterior, or with that of another shift: what the network believes about the noise."""
    shift = (SHIFT if name == "cosine" else 0.0) if shift is None else shift
    ends = {"log_snr_min": log_snr_min, "log_snr_max": log_snr_max}
    made = build(tokens=N, codes=K, embedding_dim=2, s=shift, schedule={"name": name, **ends}, **options)
    made.embedding.weight.data.copy_(TABLE)
    made.network = Posterior(build_schedule(name, shift if believed is None else believed, **ends))
    return made.eval()


def number(tokens: Tensor) -> Tensor:
    return (tokens * torch.tensor([K**2, K, 1])).sum(dim=1)


def total_variation(tokens: Tensor) -> float:
    """Half the sum of |share - p| over the 64 states."""
    shares = torch.bincount(number(tokens), minlength=K**N).double() / len(tokens)
    return 0.5 * float((shares - P).abs().sum())


def noise_alone(n: int) -> float:
    """Its mean for n exact samples: E|share - p| = sqrt(2 p (1 - p) / (pi n)), the share being nearly normal."""
    return 0.5 * float((2 * P * (1 - P) / (math.pi * n)).sqrt().sum())


def drawn(model: Any, n: int, sampler: str = "ancestral", steps: int = 100) -> Tensor:
    return model.sample(None, CounterRNG(0, "toy", torch.arange(n)), sampling(steps, sampler))


def exact_tokens(n: int) -> Tensor:
    """n states, each as often as its probability says: rounded, so nothing is random about them."""
    cumulative = (P.cumsum(dim=0) * n).round().long()
    return STATES.repeat_interleave(cumulative.diff(prepend=torch.zeros(1, dtype=torch.int64)), dim=0)


def test_the_distribution_is_correlated_and_its_tokens_determined_at_the_clean_end() -> None:
    """So that a sampler that takes tokens one by one, or stops early, cannot pass."""
    marginals = torch.stack([P @ F.one_hot(STATES[:, i], K).double() for i in range(N)])
    independent = torch.stack([marginals[i, STATES[:, i]] for i in range(N)]).prod(dim=0)
    assert 0.5 * float((independent - P).abs().sum()) > 0.3
    closest = float(torch.pdist(TABLE).min())
    # Half the distance in units of sigma / alpha: the chance of a wrong token is below 1e-9.
    assert closest / 2 * math.exp(3) > 6


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_with_the_exact_posterior_sampling_reproduces_the_distribution(sampler: str) -> None:
    """Total variation below 0.02; that of as many exact samples is 0.0152 on average (spread: some 0.0015)."""
    n = 20_000
    assert noise_alone(n) == pytest.approx(0.0152, abs=1e-4)
    assert total_variation(drawn(method(), n, sampler)) < 0.02


def test_few_steps_do_not_reproduce_it() -> None:
    """The price of steps, and the proof that the measure sees it."""
    assert total_variation(drawn(method(), 5000, steps=2)) > 0.1


@pytest.mark.parametrize("believed", [SHIFT - 2, SHIFT + 2])
def test_a_network_that_believes_in_another_noise_does_not_reproduce_it(believed: float) -> None:
    assert total_variation(drawn(method(believed=believed), 5000)) > 0.2


@functools.cache
def bound(repeats: int = 16, levels: int = 64, seed: int = 0, **options: Any) -> tuple[float, float]:
    """Mean over x ~ p of the bound, and its standard error over independent repetitions."""
    model = method(**options)
    tokens = exact_tokens(1000)
    means = torch.stack(
        [
            model.bound(tokens, None, CounterRNG(seed * 100 + repeat, "toy", torch.arange(len(tokens))), levels).mean()
            for repeat in range(repeats)
        ]
    )
    return float(means.mean()), float(means.std()) / repeats**0.5


def test_with_the_exact_posterior_the_bound_is_the_entropy() -> None:
    """In continuous time nothing is lost between the ends; at the ends here the tokens are certain, or pure noise."""
    mean, error = bound()
    assert error < 0.006
    assert abs(mean - ENTROPY) < 4 * error + 0.002


SHAPES = [*({"shift": shift} for shift in (-4.0, 3.0)), *({"name": name} for name in SCHEDULES if name != "cosine")]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_bound_does_not_depend_on_the_schedules_shape(shape: dict[str, Any]) -> None:
    """Same ends in log SNR, other noise at every time between them, other random numbers."""
    (ours, our_error), (theirs, their_error) = bound(), bound(**shape, seed=1)
    assert abs(ours - theirs) < 4 * math.hypot(our_error, their_error)


@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
def test_the_bounds_integral_over_uniform_times_is_the_same_one(shift: float) -> None:
    """-1/2 E_t[SNR'(t) |psi - psi_hat|^2] with t uniform, slope by differentiation: another path to equation 2."""
    model = method(shift=shift, log_snr_max=2.0)
    tokens = exact_tokens(1000).repeat(64, 1)
    rng = CounterRNG(0, "toy", torch.arange(len(tokens)))
    u = (torch.arange(len(tokens)).view(1000, 64).T.flatten() % 64 + rng.uniform("u").double()) / 64
    t = model.schedule.between(u).requires_grad_()
    (slope,) = torch.autograd.grad(model.schedule.log_snr(t).exp().sum(), t)
    psi, t = model.embedding(tokens).detach(), t.detach()
    z_t = gaussian.diffuse(model.schedule, psi, t, rng.normal("eps", N, 2))
    error = losses.squared_error(psi, model.psi_hat(model.network(z_t, t)).detach()).double()
    values = -0.5 * (model.schedule.end - model.schedule.start) * slope * error
    integral, spread = float(values.mean()), float(values.std()) / len(values) ** 0.5

    mean, mean_error = bound(8, shift=shift, log_snr_max=2.0)
    start = torch.full((len(tokens),), model.schedule.start, dtype=torch.float64)
    z_0 = gaussian.diffuse(model.schedule, psi, start, rng.normal("rec", N, 2))
    rec = losses.cross_entropy(model.network(z_0, start), tokens).mean()
    ends = float(rec + gaussian.prior_kl(model.schedule, psi).mean())
    assert abs(integral + ends - mean) < 4 * math.hypot(spread, mean_error)
    assert spread < 0.03


def test_an_early_clean_end_costs_bits_and_is_still_a_bound() -> None:
    """At log SNR 0 tokens are uncertain, and the last look takes them one by one."""
    mean, error = bound(4, log_snr_max=0.0)
    assert mean > ENTROPY + 10 * error


def test_a_late_end_that_is_not_pure_noise_is_paid_for_in_the_prior() -> None:
    """At log SNR -1 the latest z tells much of x; without the prior term this would fall below the entropy."""
    mean, error = bound(4, log_snr_min=-1.0)
    assert mean > ENTROPY + 10 * error


def test_a_wrong_posterior_is_above_the_entropy() -> None:
    mean, error = bound(4, believed=SHIFT + 1)
    assert mean > ENTROPY + 10 * error
