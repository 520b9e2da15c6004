"""The distribution of test_toy.py again: on chains of tokens with their exact posterior, and one by one from [mask]."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.factory import build, sampling
from tests.methods.test_toy import ENTROPY, STATES, K, N, P, exact_tokens, noise_alone, number, total_variation
from vqlcmd import methods
from vqlcmd.diffusion.discrete import DiscreteDiffusion
from vqlcmd.diffusion.markov import Kernel
from vqlcmd.rng import CounterRNG

T = 100
PLACES = F.one_hot(STATES, K).flatten(1).float()
# Name and schedule: every chain.
CHAINS = [
    (name, each)
    for name in methods.METHODS
    if issubclass(methods.method_class(name), DiscreteDiffusion)
    for each in methods.method_class(name).schedules
]
every = pytest.mark.parametrize(("name", "schedule"), CHAINS)


def marginals(scores_BNK: Tensor) -> Tensor:
    """log p(x_i = k) from log-likelihoods of every token, by listing all x: softmax over states of log p(x) + them."""
    states = (scores_BNK.flatten(1) @ PLACES.T + P.log().float()).softmax(dim=1)
    return (states @ PLACES).clamp_min(1e-30).log().view(-1, N, K)


class Exact(nn.Module):
    """log p(x_i = k | x_t), x_t as one-hot vectors; with `own` False from the other tokens of x_t alone, for t > 1.

    That is D3PM's: its step multiplies with what a token's own state says, and its last one alone does not.
    """

    def __init__(self, kernel: Kernel, own: bool):
        super().__init__()
        self.timesteps, self.own = kernel.timesteps, own
        t = torch.arange(kernel.timesteps + 1)
        likelihood = [kernel.likelihood(torch.full((len(t), 1), x), 0 * t, t, torch.float64) for x in range(K + 1)]
        # (time, state at that time, code): log q(x_t | x_0).
        self.log_q = torch.cat(likelihood, dim=1).log().clamp_min(-80).float()

    def forward(self, z_BND: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        step = (t * self.timesteps).round().long()
        log_q_BNK = self.log_q[step[:, None], z_BND.argmax(dim=2)]
        posterior_BNK = marginals(log_q_BNK)
        return posterior_BNK if self.own else posterior_BNK - torch.where(step > 1, 1, 0)[:, None, None] * log_q_BNK


class Unmasked(nn.Module):
    """log p(x_i = k | the tokens that are not masked)."""

    def forward(self, z_BND: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        x_BN1 = z_BND.argmax(dim=2, keepdim=True)
        return marginals(torch.where((x_BN1 == K) | (x_BN1 == torch.arange(K)), 0.0, -80.0))


class Timid(nn.Module):
    """A network with half the confidence of another one."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, z_BND: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return 0.5 * self.network(z_BND, t, label)


def bare(name: str, **discrete: Any) -> Any:
    """A method whose network sees its states as one-hot vectors."""
    made = build(
        method=name,
        tokens=N,
        codes=K,
        embedding_dim=K + 1,
        discrete={"timesteps": T} | discrete,
    )
    made.embedding.weight.data.copy_(torch.eye(K + 1)[: len(made.embedding.weight)])
    return made.eval()


def chain(name: str, schedule: str, *, own: bool | None = None, timesteps: int = T) -> Any:
    made = bare(name, schedule={name: schedule}, timesteps=timesteps)
    made.network = Exact(made.kernel, own=name != "d3pm" if own is None else own)
    return made


def maskgit() -> Any:
    made = bare("maskgit")
    made.network = Unmasked()
    return made


def timid(model: Any) -> Any:
    model.network = Timid(model.network)
    return model


def drawn(model: Any, n: int, steps: int, known: Tensor | None = None, temperature: float = 1e4) -> Tensor:
    how = sampling(steps, temperature=temperature, truncation=1.0)
    return model.sample(None, CounterRNG(0, "toy", torch.arange(n)), how, known)


def bound(model: Any, repeats: int, levels: int) -> tuple[float, float]:
    """Mean over x ~ p of the bound, and its standard error over independent repetitions."""
    tokens = exact_tokens(1000)
    noises = [CounterRNG(repeat, "toy", torch.arange(len(tokens))) for repeat in range(repeats)]
    means = torch.stack([model.bound(tokens, None, rng, levels).mean() for rng in noises])
    return float(means.mean()), float(means.std()) / repeats**0.5


@functools.cache
def exact_bound(name: str, schedule: str) -> tuple[float, float]:
    return bound(chain(name, schedule), repeats=4, levels=50)


@every
def test_with_the_exact_posterior_a_chain_of_many_steps_reproduces_the_distribution(name: str, schedule: str) -> None:
    """Total variation below 0.036; that of as many exact samples is 0.0277 on average (spread: some 0.003)."""
    n = 6000
    assert noise_alone(n) == pytest.approx(0.0277, abs=1e-4)
    assert total_variation(drawn(chain(name, schedule), n, T)) < 0.036


@every
def test_strides_over_the_chain_reproduce_it_too(name: str, schedule: str) -> None:
    """D3PM's last stride took the network's answer, which leaves the token's own state out, for its own: 0.38."""
    assert total_variation(drawn(chain(name, schedule), 5000, T // 4)) < 0.06


@every
def test_a_chain_of_few_steps_does_not_reproduce_it(name: str, schedule: str) -> None:
    assert total_variation(drawn(chain(name, schedule, timesteps=4), 5000, 4)) > 0.1


@every
def test_a_wrong_posterior_does_not_reproduce_it(name: str, schedule: str) -> None:
    assert total_variation(drawn(timid(chain(name, schedule)), 2000, T)) > 0.15


def test_d3pm_counts_a_tokens_own_state_once_and_in_the_step() -> None:
    """Its network has to leave it out: one that does not, as VQ-Diffusion's does not, is far off."""
    assert total_variation(drawn(chain("d3pm", "cosine", own=True), 2000, T)) > 0.3
    mean, error = bound(chain("d3pm", "cosine", own=True), repeats=4, levels=20)
    assert mean - ENTROPY > 0.3 + 4 * error


@every
def test_with_the_exact_posterior_the_bound_of_many_steps_is_close_to_the_entropy(name: str, schedule: str) -> None:
    mean, error = exact_bound(name, schedule)
    assert error < 0.008
    assert -4 * error < mean - ENTROPY < 0.015 + 4 * error


@every
def test_the_bound_is_above_the_entropy_where_steps_are_few_or_the_posterior_is_wrong(name: str, schedule: str) -> None:
    """Tokens that move in one step move independently: what that costs, the bound says."""
    mean, error = exact_bound(name, schedule)
    for model in (chain(name, schedule, timesteps=4), timid(chain(name, schedule))):
        worse, worse_error = bound(model, repeats=4, levels=10)
        assert worse - ENTROPY > 0.05
        assert worse - mean > 4 * (error + worse_error)


@every
def test_a_chain_that_stops_before_it_has_forgotten_pays_for_it_in_the_prior(name: str, schedule: str) -> None:
    """After a fifth of the way x_T tells much of x; without the prior term this would fall below the entropy."""
    model = chain(name, schedule)
    model.kernel = Kernel(model.kernel.keep[: T // 5 + 1], model.kernel.mask[: T // 5 + 1], K)
    model.network = Exact(model.kernel, own=name != "d3pm")
    mean, error = bound(model, repeats=4, levels=20)
    prior = float(model.kernel.prior_kl(STATES[:1]))
    assert mean - prior < ENTROPY - 10 * error
    assert mean > ENTROPY + 10 * error


@every
def test_the_bound_does_not_depend_on_how_many_levels_estimate_it(name: str, schedule: str) -> None:
    model = chain(name, schedule, timesteps=10)
    (few, few_error), (many, many_error) = bound(model, 20, 2), bound(model, 4, 10)
    assert few_error < 0.025
    assert abs(few - many) < 4 * (few_error + many_error)


def test_maskgit_reproduces_it_one_by_one_in_any_order() -> None:
    """Nothing is lost when each token is drawn on what is known, wherever one starts: exact, not only in the limit."""
    n = 20_000
    assert noise_alone(n) == pytest.approx(0.0152, abs=1e-4)
    assert total_variation(drawn(maskgit(), n, N)) < 0.02


def test_maskgit_does_not_reproduce_it_all_at_once_nor_the_surest_tokens_first() -> None:
    assert total_variation(drawn(maskgit(), 5000, 1)) > 0.1
    assert total_variation(drawn(maskgit(), 5000, N, temperature=0.0)) > 0.1


@pytest.mark.parametrize("place", range(N))
def test_maskgit_with_tokens_held_fixed_draws_from_the_conditional_distribution(place: int) -> None:
    """p(x | x_place = 1): total variation as small as that of exact samples. Marginals alone would be far off."""
    n, token = 5000, 1
    known = torch.full((n, N), -1)
    known[:, place] = token
    conditional = P * (STATES[:, place] == token)
    conditional = conditional / conditional.sum()
    shares = torch.bincount(number(drawn(maskgit(), n, N, known)), minlength=K**N).double() / n
    assert 0.5 * float((shares - conditional).abs().sum()) < 0.025


def test_maskgits_bound_is_the_entropy() -> None:
    """E over orders of the sum over places is -log p(x) for every order, where the conditionals are those of p."""
    mean, error = bound(maskgit(), repeats=8, levels=30)
    assert error < 0.004
    assert abs(mean - ENTROPY) < 4 * error


def test_maskgits_bound_is_above_the_entropy_where_the_network_is_wrong() -> None:
    mean, error = bound(timid(maskgit()), repeats=4, levels=10)
    assert mean > ENTROPY + 10 * error
