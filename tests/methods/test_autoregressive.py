"""The autoregressive model: what a token sees, its exact likelihood, and samples drawn from just that."""

import pytest
import torch
from torch.nn import functional as F

from tests.factory import CODES, TOKENS, build, integers, made, perturb, sampling
from vqlcmd.diffusion.guidance import guided
from vqlcmd.diffusion.markov import sample_categorical
from vqlcmd.rng import CounterRNG

B = 12
X, LABEL = integers(CODES, B, TOKENS), integers(3, B, seed=1)
NOISE = CounterRNG(7, "test", torch.arange(B))


def test_an_autoregressive_model_sees_the_tokens_before_and_no_others() -> None:
    method = made("autoregressive", network={"layers": 2})
    logits = method.logits(*method.noised(X, torch.zeros(B), NOISE), LABEL)
    for place in range(TOKENS):
        other = X.clone()
        other[:, place] = (X[:, place] + 1) % CODES
        moved = (method.logits(*method.noised(other, torch.zeros(B), NOISE), LABEL) - logits).abs().amax(dim=2)
        assert (moved[:, : place + 1] == 0).all()
        assert (moved[:, place + 1 :] > 1e-4).all()


def test_an_autoregressive_models_loss_is_its_bound() -> None:
    method = made("autoregressive", train={"class_drop": 0.0})
    assert torch.equal(method(X, LABEL, NOISE, method)["ce"], method.bound(X, LABEL, NOISE, 7))


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_an_autoregressive_model_draws_token_by_token_what_one_pass_over_all_says(guidance: float) -> None:
    """Keys and values from before are those of the whole, for both halves of a guided pass."""
    method = made("autoregressive", network={"layers": 2})
    tokens = method.sample(LABEL, NOISE, sampling(guidance=guidance))
    x_BN, t = method.noised(tokens, torch.zeros(B), NOISE)
    p_BNK = guided(method.logits, guidance, null=3)(x_BN, t, LABEL).softmax(dim=2)
    assert torch.equal(sample_categorical(p_BNK, NOISE.uniform("step", TOKENS)), tokens)
    assert len(tokens.unique(dim=0)) > B // 2


def test_an_autoregressive_model_samples_what_its_exact_likelihood_says() -> None:
    """Over all K^N states exp(-N bound) sums to 1, and samples come as often as it says."""
    tokens, codes, n = 3, 4, 20_000
    model = perturb(build(method="autoregressive", tokens=tokens, codes=codes), 0.5, seed=1).eval()
    states = torch.cartesian_prod(*[torch.arange(codes)] * tokens)
    p = torch.exp(-tokens * model.bound(states, None, CounterRNG(0, "test", torch.arange(len(states))), 1).double())
    assert float(p.sum()) == pytest.approx(1, abs=1e-6)
    drawn = model.sample(None, CounterRNG(0, "test", torch.arange(n)), sampling())
    shares = torch.bincount(drawn @ torch.tensor([16, 4, 1]), minlength=len(states)).double() / n
    assert 0.5 * float((shares - p).abs().sum()) < 0.02
    # Far from a distribution of independent tokens, so that this says something.
    alone = torch.stack([F.one_hot(states[:, place], codes).double().T @ p for place in range(tokens)])
    assert 0.5 * float((p - alone[torch.arange(tokens), states].prod(dim=1)).abs().sum()) > 0.1
