"""Discrete flow matching on the distribution of test_toy.py: both sources, every schedule, sampler and corrector."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.factory import CODES, build, integers, made, normal, sampling
from tests.methods.test_toy import ENTROPY, STATES, K, N, noise_alone, total_variation
from tests.methods.test_toy_discrete import Unmasked, bound, marginals, timid
from vqlcmd.diffusion.masked.model import Masked
from vqlcmd.methods.flow_matching import SAMPLERS, SCHEDULES, SOURCES, Polynomial
from vqlcmd.rng import CounterRNG

both = pytest.mark.parametrize("source", SOURCES)
every = pytest.mark.parametrize("schedule", SCHEDULES)
TIMESTEPS = 100


class Posterior(nn.Module):
    """log p(x_i = k | x_t) from the uniform source: q(x_t | x) = kappa [x_t = x] + (1 - kappa) / K."""

    def __init__(self, schedule: Polynomial):
        super().__init__()
        self.schedule = schedule

    def forward(self, z_BND: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        kappa = self.schedule.kappa(1 - t).float()[:, None, None]
        same_BNK = z_BND.argmax(dim=2, keepdim=True) == torch.arange(K)
        return marginals((kappa * same_BNK + (1 - kappa) / K).clamp_min(1e-30).log())


def exact(source: str, schedule: str = "linear", timesteps: int = TIMESTEPS) -> Any:
    discrete = {"timesteps": timesteps, "source": source, "schedule": {"flow_matching": schedule}}
    model = build(method="flow_matching", tokens=N, codes=K, embedding_dim=K + 1, discrete=discrete)
    model.embedding.weight.data.copy_(torch.eye(K + 1)[: len(model.embedding.weight)])
    model.network = Unmasked() if source == "mask" else Posterior(model.schedule)
    return model.eval()


def drawn(model: Any, n: int, steps: int, sampler: str = "ancestral", corrector: float = 0.0) -> Tensor:
    how = sampling(steps, sampler, corrector=corrector)
    return model.sample(None, CounterRNG(0, "toy", torch.arange(n)), how)


@both
@every
def test_with_the_exact_posterior_many_steps_reproduce_the_distribution(source: str, schedule: str) -> None:
    """Total variation below 0.036; that of as many exact samples is 0.0277 on average (spread: some 0.003)."""
    n = 6000
    assert noise_alone(n) == pytest.approx(0.0277, abs=1e-4)
    assert total_variation(drawn(exact(source, schedule), n, 200)) < 0.036


@both
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_corrector_leaves_the_distribution_as_it_is_and_so_does_euler(source: str, sampler: str) -> None:
    for corrector in (0.0, 2.0) if sampler == "euler" else (2.0,):
        assert total_variation(drawn(exact(source), 6000, 200, sampler, corrector)) < 0.036


@both
def test_a_token_that_is_drawn_anew_is_data_as_often_as_the_path_says(source: str) -> None:
    """The data known, all tokens drawn anew at each of 4 steps: a quarter is data after the first, and so on."""
    model, states = exact(source), []
    model.embedding.register_forward_pre_hook(lambda _, args: states.append(args[0].clone()))
    known = torch.full((4000, N), 2)
    how = sampling(4, corrector=1e3)
    tokens = model.sample(None, CounterRNG(0, "toy", torch.arange(len(known))), how, known)
    for state, kappa in zip([*states, tokens], (0, 0.25, 0.5, 0.75, 1), strict=True):
        expected = kappa + (0 if source == "mask" else (1 - kappa) / K)
        assert float((state == 2).float().mean()) == pytest.approx(expected, abs=0.02)


@both
def test_few_steps_or_a_wrong_posterior_do_not_reproduce_it(source: str) -> None:
    assert total_variation(drawn(exact(source), 5000, 1)) > 0.1
    assert total_variation(drawn(timid(exact(source)), 3000, 100)) > 0.15


@every
def test_from_mask_the_bound_of_the_exact_posterior_is_close_to_the_entropy(schedule: str) -> None:
    """Above it by what the last stretch of the path costs, in which tokens are drawn at once."""
    mean, error = bound(exact("mask", schedule), repeats=8, levels=50)
    assert error < 0.012
    assert -4 * error < mean - ENTROPY < 0.015 + 4 * error


@every
def test_from_uniform_codes_the_bound_is_loose_by_a_known_amount_whatever_the_schedule(schedule: str) -> None:
    """Of K codes all alike: (1 - 1 / K) (1 + log K) and not log K, since a path tells which tokens have moved.

    -log p(x) of one who predicts is (1 - kappa) (1 - 1 / K) (log K - log(1 - kappa)) d kappa / (1 - kappa), summed up.
    """
    model = exact("uniform", schedule, timesteps=100_000)
    model.network.forward = lambda z, t, label=None: _alike(model.schedule, z, t)
    tokens = STATES.repeat(15, 1)
    noises = [CounterRNG(repeat, "toy", torch.arange(len(tokens))) for repeat in range(8)]
    means = torch.stack([model.bound(tokens, None, rng, 100).mean() for rng in noises])
    error = float(means.std()) / len(means) ** 0.5
    assert error < 0.02
    assert float(means.mean()) == pytest.approx((1 - 1 / K) * (1 + math.log(K)), abs=4 * error)


def _alike(schedule: Polynomial, z_BND: Tensor, t: Tensor) -> Tensor:
    """log p(x_i = k | x_t) where p(x) is 1 / K^N."""
    kappa = schedule.kappa(1 - t).float()[:, None, None]
    return (kappa * (z_BND.argmax(dim=2, keepdim=True) == torch.arange(K)) + (1 - kappa) / K).log()


@both
def test_the_bound_is_above_the_entropy_where_the_path_ends_early_or_the_posterior_is_wrong(source: str) -> None:
    for model in (exact(source, timesteps=2), timid(exact(source))):
        mean, error = bound(model, repeats=4, levels=20)
        assert mean - ENTROPY > 0.05
        assert mean > ENTROPY + 4 * error


def test_from_mask_the_bound_is_that_of_masked_diffusion() -> None:
    """The same network under both: a wrong one, so that they could differ. The end of the path apart."""
    flow = timid(exact("mask", timesteps=1000))
    mean, error = bound(flow, repeats=8, levels=50)
    other, other_error = (float(each) for each in _masked_bound(flow))
    assert abs(mean - other) < 4 * (error + other_error) + 0.005


def _masked_bound(flow: Any) -> tuple[float, float]:
    model = build(method="mdlm", tokens=N, codes=K, embedding_dim=K + 1)
    assert isinstance(model, Masked)
    model.embedding.weight.data.copy_(torch.eye(K + 1))
    model.network = flow.network
    return bound(model.eval(), repeats=8, levels=30)


@both
@every
def test_states_are_data_by_kappa_and_source_else(source: str, schedule: str) -> None:
    """At tau = 1/2; a uniform source hits the data's code once in K."""
    model = exact(source, schedule)
    tokens = STATES[integers(len(STATES), 4000)]
    half = torch.full((len(tokens),), 0.5)
    x, t = model.noised(tokens, half, CounterRNG(0, "toy", torch.arange(len(tokens))))
    kappa = 0.5 ** SCHEDULES[schedule].power
    expected = kappa + (0 if source == "mask" else (1 - kappa) / K)
    assert float((x == tokens).float().mean()) == pytest.approx(expected, abs=0.02)
    assert torch.equal(t, half)
    assert int(x.max()) == (K if source == "mask" else K - 1)


@every
def test_a_schedules_rate_is_the_slope_of_what_is_left(schedule: str) -> None:
    tau = torch.linspace(0.01, 0.98, 99, dtype=torch.float64).requires_grad_()
    kappa = SCHEDULES[schedule].kappa(tau)
    (slope,) = torch.autograd.grad(-(1 - kappa).log().sum(), tau)
    assert torch.allclose(SCHEDULES[schedule].rate(tau.detach()), slope)
    assert SCHEDULES[schedule].kappa(torch.tensor([0.0, 1.0])).tolist() == [0, 1]


def test_from_mask_what_is_data_stays_whatever_the_network_says() -> None:
    """Without a corrector, one token after the other becomes data and none changes again."""
    model, states = made("flow_matching", tokens=16), []
    model.embedding.register_forward_pre_hook(lambda _, args: states.append(args[0].clone()))
    tokens = model.sample(integers(3, 20), CounterRNG(0, "toy", torch.arange(20)), sampling(8))
    for before, after in zip(states, [*states[1:], tokens], strict=True):
        assert torch.equal(after[before < CODES], before[before < CODES])
    assert 0 < int((states[4] < CODES).sum()) < 320


@both
def test_the_loss_is_cross_entropy_at_all_positions(source: str) -> None:
    logits, x = normal(4, CODES), integers(CODES, 12, 4)
    discrete = {"timesteps": 20, "source": source}
    method = build(method="flow_matching", train={"batch_size": 12}, discrete=discrete)
    method.network.forward = lambda z, t, label: logits.expand(len(z), -1, -1)
    nats = -logits.log_softmax(dim=1)
    expected = [sum(float(nats[i, k]) for i, k in enumerate(row)) / 4 for row in x.tolist()]
    found = method(x, None, CounterRNG(7, "test", torch.arange(12)), method)["ce"]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    assert method.weights == {"ce": 1.0}
