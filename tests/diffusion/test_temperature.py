"""P^(1 / T): what the score temperature makes of predictions, and of samples."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.factory import normal, sampling
from tests.methods.test_toy import P, drawn, method, number, total_variation
from vqlcmd.diffusion.guidance import tempered
from vqlcmd.rng import CounterRNG

LOGITS = normal(4, 5, 6, dtype=torch.float64)


def predict(z_BND: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    return LOGITS


class Scaled(nn.Module):
    """Another network's logits, times a factor."""

    def __init__(self, network: nn.Module, factor: float):
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, *given: Any) -> Tensor:
        return self.factor * self.network(*given)


def samples(model: Any, n: int, temperature: float, sampler: str = "ancestral", steps: int = 30) -> Tensor:
    how = sampling(steps, sampler, score_temperature=temperature)
    return model.sample(None, CounterRNG(0, "toy", torch.arange(n)), how)


def test_at_one_it_is_the_very_same_function() -> None:
    assert tempered(predict, 1.0) is predict


@pytest.mark.parametrize("temperature", [0.5, 0.8, 2.0])
def test_probabilities_are_the_normalised_powers(temperature: float) -> None:
    power = LOGITS.softmax(dim=2) ** (1 / temperature)
    found = tempered(predict, temperature)(LOGITS, LOGITS[:, 0, 0], None).softmax(dim=2)
    assert torch.allclose(found, power / power.sum(dim=2, keepdim=True), rtol=1e-10)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "consistency"])
def test_it_undoes_a_network_that_is_too_sure_by_as_much(sampler: str) -> None:
    """4 times the logits at temperature 4 are the exact posterior: the same samples, and not those at temperature 1."""
    exact, sure = method(), method()
    sure.network = Scaled(sure.network, 4.0)
    assert torch.equal(samples(sure, 500, 4.0, sampler), samples(exact, 500, 1.0, sampler))
    assert not torch.equal(samples(sure, 500, 1.0, sampler), samples(exact, 500, 1.0, sampler))


def test_samples_are_more_typical_the_colder() -> None:
    """Their mean log-probability rises, and the distribution is that of the data at temperature 1 alone."""
    model, n = method(), 4000
    log_p = [float(P.log()[number(samples(model, n, t, steps=100))].mean()) for t in (2.0, 1.0, 0.8, 0.5)]
    assert log_p == sorted(log_p)
    exact, cold = (total_variation(samples(model, n, t, steps=100)) for t in (1.0, 0.5))
    assert exact < 0.06 < cold


def test_one_step_of_the_consistency_sampler_takes_the_most_probable_tokens_at_every_temperature() -> None:
    model = method()
    assert torch.equal(samples(model, 200, 0.1, "consistency", 1), samples(model, 200, 5.0, "consistency", 1))


def test_models_saved_before_there_was_a_temperature_sample_as_they_did() -> None:
    model, how = method(), sampling(30)
    own = {name: value for name, value in how.own.items() if name != "score_temperature"}
    older = type(how)(how.steps, how.sampler, how.guidance, own, how.precision)
    found = model.sample(None, CounterRNG(0, "toy", torch.arange(50)), older)
    assert torch.equal(found, drawn(model, 50, steps=30))
