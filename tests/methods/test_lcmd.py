"""VQ-LCMD alone: its terms, what is dropped, and what the teacher is asked."""

import pytest
import torch
from torch import Tensor

from tests.factory import CODES, TOKENS, integers, made
from vqlcmd.diffusion.embedding import DROPPING
from vqlcmd.rng import CounterRNG

B = 4
X, LABEL = integers(CODES, B, TOKENS), integers(3, B, seed=1)
NOISE = CounterRNG(7, "test", torch.arange(B))
TERMS = ["rec", "diff", "cm", "ce"]


@pytest.mark.parametrize("only", TERMS)
def test_only_terms_with_a_weight_are_counted(only: str) -> None:
    weights = {f"lambda_{term}": 1.0 if term == only else 0.0 for term in TERMS}
    method = made("lcmd", **weights).train()
    terms = method(X, LABEL, NOISE, made("lcmd", **weights))
    assert set(terms) == {only}
    assert method.weights == {only: 1.0}
    terms[only].mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.network.parameters())
    # Through z_t at least, the embeddings are moved by every term.
    assert method.embedding.weight.grad.abs().sum() > 0


def test_a_terms_value_does_not_depend_on_which_others_are_counted() -> None:
    whole = made("lcmd")(X, LABEL, NOISE, made("lcmd"))
    for only in TERMS:
        weights = {f"lambda_{term}": 1.0 if term == only else 0.0 for term in TERMS}
        alone = made("lcmd", **weights)(X, LABEL, NOISE, made("lcmd"))
        assert torch.allclose(alone[only], whole[only], rtol=1e-5)


@pytest.mark.parametrize("kind", ["learned", "unit", "codebook"])
@pytest.mark.parametrize("dropping", DROPPING)
@pytest.mark.parametrize("weighting", ["simple", "vlb"])
def test_every_embedding_dropping_and_weighting_go_together(kind: str, dropping: str, weighting: str) -> None:
    options = {"embedding": kind, "dropping": dropping, "weighting": weighting, "vqgan": {"embed_dim": 6}}
    method = made("lcmd", **options).train()
    terms = method(X, LABEL, NOISE, made("lcmd", **options))
    assert all(term.isfinite().all() for term in terms.values())


def test_a_dropped_token_is_hidden_from_the_network_and_still_a_target() -> None:
    """With every embedding dropped, the network's input does not depend on the tokens; the loss does."""
    method = made("lcmd", lambda_diff=0.0, lambda_cm=0.0)
    method.drop, inputs = 1.1, []
    method.network.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    losses = [method(tokens, LABEL, NOISE, method)["rec"] for tokens in (X, (X + 1) % CODES)]
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.allclose(losses[0], losses[1])


def test_an_equal_teacher_at_the_same_time_leaves_no_inconsistency(monkeypatch: pytest.MonkeyPatch) -> None:
    """With s = t the DDIM step stays where it is, and the teacher says what the student says."""
    method = made("lcmd", lambda_rec=0.0, lambda_diff=0.0, lambda_ce=0.0)
    uniform = CounterRNG.uniform

    def one(self: CounterRNG, draw: str, *shape: int) -> Tensor:
        return torch.ones(B) if draw == "earlier_time" else uniform(self, draw, *shape)

    assert (method(X, LABEL, NOISE, method)["cm"] > 1e-4).all()
    monkeypatch.setattr(CounterRNG, "uniform", one)
    assert method(X, LABEL, NOISE, method)["cm"].abs().max() < 1e-5


@pytest.mark.parametrize("weighting", ["simple", "vlb"])
def test_the_teacher_is_asked_at_earlier_times_spread_evenly_from_the_clean_end(weighting: str) -> None:
    """s ~ U(start, t), and t over the whole schedule: Kolmogorov's test, above 1.95 once in a thousand."""
    rows = torch.arange(1000)
    method = made("lcmd", weighting=weighting, train={"batch_size": 1000})
    asked, earlier = [], method.teacher_logits
    method.teacher_logits = lambda now, s, *rest: asked.append((s, now.t)) or earlier(now, s, *rest)
    method(integers(CODES, 1000, TOKENS), integers(3, 1000), CounterRNG(7, "test", rows), method)
    s, t = asked[0]
    start, end = method.schedule.start, method.schedule.end
    assert (start <= s).all()
    assert (s <= t).all()
    share = ((s - start) / (t - start)).sort().values
    assert 1000**0.5 * float((share - (rows + 0.5) / 1000).abs().max()) < 1.95
    assert float(t.min()) - start < 0.02
    assert end - float(t.max()) < 0.02


def test_reconstruction_is_asked_for_at_the_clean_end() -> None:
    method, times = made("lcmd", lambda_cm=0.0), []
    method.network.register_forward_pre_hook(lambda _, args: times.append(args[1]))
    method(X, LABEL, NOISE, method)
    at_t, at_0 = torch.cat(times).chunk(2)
    assert at_0.tolist() == [method.schedule.start] * B
    assert (at_t > method.schedule.start).all()
