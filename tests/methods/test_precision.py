"""bf16 and float32 agree, within the precision of bf16."""

import pytest
import torch
from torch import Tensor

from tests.factory import CODES, METHODS, TOKENS, integers, made
from vqlcmd.rng import CounterRNG


def terms_and_gradients(name: str, autocast: bool) -> tuple[dict[str, Tensor], Tensor]:
    """Means of the loss terms, and the gradients of their sum, one after the other."""
    rows = torch.arange(16)
    method, teacher = (made(name, network={"width": 32}, train={"batch_size": 16}) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        terms = method(integers(CODES, 16, TOKENS), integers(3, 16, seed=1), CounterRNG(7, "test", rows), teacher)
    means = {term: values.mean() for term, values in terms.items()}
    torch.stack(list(means.values())).sum().backward()
    gradients = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
    return {term: value.detach() for term, value in means.items()}, gradients


@pytest.mark.parametrize("name", METHODS)
def test_bf16_gives_the_terms_and_gradients_of_float32_within_its_own_precision(name: str) -> None:
    """8 bits are 0.4% a rounding: a term may be off by 2%, the gradient of all parameters by 10% of its length."""
    exact, gradients = terms_and_gradients(name, autocast=False)
    rounded, rounded_gradients = terms_and_gradients(name, autocast=True)
    assert any(not torch.equal(rounded[term], exact[term]) for term in exact), "nothing was rounded"
    for term, value in exact.items():
        assert rounded[term].dtype == torch.float32
        assert float(rounded[term]) == pytest.approx(float(value), rel=0.02), term
    assert float((rounded_gradients - gradients).norm() / gradients.norm()) < 0.1
