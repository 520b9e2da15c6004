"""Masked models on the distribution of test_toy.py: every sampler with the exact posterior, and the bound."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factory import CODES, build, integers, made, normal, sampling
from tests.methods.test_toy import ENTROPY, N, exact_tokens, noise_alone, total_variation
from tests.methods.test_toy_discrete import Unmasked, bare, bound, timid
from vqlcmd import methods
from vqlcmd.diffusion.masked.ancestral import capped, never, rescaled
from vqlcmd.diffusion.masked.model import Masked
from vqlcmd.diffusion.masked.reveal import halton_order
from vqlcmd.methods.mdlm import SCHEDULES
from vqlcmd.rng import CounterRNG

MODELS = [name for name in methods.METHODS if issubclass(methods.method_class(name), Masked)]
schedules = pytest.mark.parametrize("schedule", SCHEDULES)
TIMED = ("ancestral", "remask_cap", "remask_rescale")


def exact(name: str = "mdlm", schedule: str = "log_linear") -> Any:
    made = bare(name, schedule={"mdlm": schedule})
    made.network = Unmasked()
    return made


def drawn(model: Any, n: int, steps: int, sampler: str, eta: float = 0.05) -> Tensor:
    how = sampling(steps, sampler, eta=eta, temperature=1e4)
    return model.sample(None, CounterRNG(0, "toy", torch.arange(n)), how)


@pytest.mark.parametrize("sampler", TIMED)
@schedules
def test_with_the_exact_posterior_many_steps_reproduce_the_distribution(schedule: str, sampler: str) -> None:
    """Total variation below 0.036; that of as many exact samples is 0.0277 on average (spread: some 0.003)."""
    n = 6000
    assert noise_alone(n) == pytest.approx(0.0277, abs=1e-4)
    assert total_variation(drawn(exact(schedule=schedule), n, 200, sampler)) < 0.036


@pytest.mark.parametrize("sampler", ["remask_cap", "remask_rescale"])
def test_maskgits_network_takes_remasking_too(sampler: str) -> None:
    assert total_variation(drawn(exact("maskgit"), 6000, 400, sampler)) < 0.036


@pytest.mark.parametrize("sampler", ["confidence", "halton"])
@pytest.mark.parametrize("name", MODELS)
def test_one_token_at_a_step_reproduces_it_in_any_order_that_the_tokens_do_not_decide(name: str, sampler: str) -> None:
    """By confidence with noise that drowns it; the Halton order is the same for all."""
    assert total_variation(drawn(exact(name), 20_000, N, sampler)) < 0.02


def test_few_steps_or_a_wrong_posterior_do_not_reproduce_it() -> None:
    for sampler in ("ancestral", "halton"):
        assert total_variation(drawn(exact(), 5000, 1, sampler)) > 0.1
    for sampler in ("ancestral", "remask_cap"):
        assert total_variation(drawn(timid(exact()), 3000, 100, sampler)) > 0.15


@schedules
def test_the_loss_is_the_bound_whatever_the_schedule_and_with_the_exact_posterior_the_entropy(schedule: str) -> None:
    """E_t[m'(t) / m(t) sum over masked tokens] at t from (0, 1] is E_n of `bound`, by how many are masked."""
    model = exact(schedule=schedule)
    tokens = exact_tokens(1000)
    model.batch_size = len(tokens)
    # Rows in another order each time: their times are stratified, and the states are sorted.
    rows = [torch.randperm(len(tokens), generator=torch.Generator().manual_seed(step)) for step in range(100)]
    noises = [CounterRNG(step, "loss", order) for step, order in enumerate(rows)]
    means = torch.stack([model(tokens, None, rng, model)["vb"].mean() for rng in noises])
    error = float(means.std()) / len(means) ** 0.5
    assert error < 0.01
    assert abs(float(means.mean()) - ENTROPY) < 4 * error
    mean, bound_error = bound(model, repeats=8, levels=30)
    assert bound_error < 0.004
    assert abs(mean - ENTROPY) < 4 * bound_error


@schedules
def test_a_schedules_weight_is_the_slope_of_its_logarithm(schedule: str) -> None:
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64).requires_grad_()
    made = SCHEDULES[schedule]
    (slope,) = torch.autograd.grad(made.share(t).log().sum(), t)
    assert torch.allclose(made.weight(t.detach()), slope)
    ends = made.share(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([0, 1])


def test_training_counts_masked_places_alone_by_the_weight_of_their_time() -> None:
    logits, x, images = normal(4, CODES), integers(CODES, 12, 4), 12
    method = build(method="mdlm", train={"batch_size": images})
    seen: dict[str, Tensor] = {}
    method.embedding.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    method.network.forward = lambda z, t, label: logits.expand(len(z), -1, -1)
    rng = CounterRNG(7, "test", torch.arange(images))
    found = method(x, None, rng, method)["vb"]
    nats, t = -logits.log_softmax(dim=1), rng.stratified("time", images)
    for image in range(images):
        masked = [float(nats[i, x[image, i]]) for i in range(4) if seen["x"][image, i] == CODES]
        assert float(found[image]) == pytest.approx(sum(masked) / 4 / float(t[image]), rel=1e-5)
    assert method.weights == {"vb": 1.0}


@pytest.mark.parametrize("remask", [never, capped, rescaled])
@pytest.mark.parametrize("eta", [0.0, 0.1, 1.0])
def test_remasking_leaves_the_share_of_masked_tokens_as_the_schedule_has_it(remask: Any, eta: float) -> None:
    """m_s = m_t stays + (1 - m_t) again, with both chances between 0 and 1."""
    for m_t, m_s in ((1.0, 0.9), (0.9, 0.5), (0.5, 0.49), (0.3, 0.0)):
        again = remask(eta, min(1.0, m_s / (1 - m_t)) if m_t < 1 else 1.0)
        stays = (m_s - again * (1 - m_t)) / m_t
        assert 0 <= again <= 1
        assert -1e-12 <= stays <= 1
        assert m_t * stays + (1 - m_t) * again == pytest.approx(m_s)


def test_without_eta_remasking_is_the_ancestral_sampler() -> None:
    plain = drawn(made("mdlm", classes=0), 50, 10, "ancestral")
    for sampler, eta in (("remask_cap", 0.0), ("remask_rescale", 0.0), ("remask_cap", 0.5)):
        same = torch.equal(drawn(made("mdlm", classes=0), 50, 10, sampler, eta), plain)
        assert same == (eta == 0)


def test_the_halton_order_meets_every_place_once_and_spreads_out() -> None:
    """By hand: 1/2, 1/4, 3/4, 1/8 in base 2 and 1/3, 2/3, 1/9, 4/9 in base 3, on 2 rows of 3."""
    assert halton_order((2, 3))[:4] == (4, 2, 3, 1)
    for grid in ((16, 16), (1, 7), (5, 3), (8,), (1, 1)):
        assert sorted(halton_order(grid)) == list(range(math.prod(grid)))
    assert halton_order((1, 8)) == halton_order((8, 1)) == halton_order((8,)) == (4, 2, 6, 1, 5, 3, 7, 0)
    # The first quarter: no two places beside each other.
    first = torch.tensor([(place // 16, place % 16) for place in halton_order((16, 16))[:32]])
    assert int(torch.pdist(first.float(), p=1).min()) > 1


def test_tokens_are_revealed_along_the_halton_order_of_the_grid() -> None:
    method, states = made("mdlm", tokens=6), []
    method.grid = (2, 3)
    method.embedding.register_forward_pre_hook(lambda _, args: states.append(args[0].clone()))
    method.sample(integers(3, 5), CounterRNG(0, "toy", torch.arange(5)), sampling(6, "halton"))
    for step, place in enumerate(halton_order((2, 3))[:5]):
        assert ((states[step] == CODES) & (states[step + 1] != CODES)).nonzero()[:, 1].tolist() == [place] * 5
