"""Contracts of every method that params.yaml can name: a new one is tested by being listed there."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from tests.factory import CODES, TOKENS, build, integers, perturb
from vqlcmd.config import ModelParams, Sampling
from vqlcmd.embedding import DROPPING
from vqlcmd.errors import ConfigError
from vqlcmd.noise import Noise

METHODS = get_args(ModelParams.model_fields["method"].annotation)
B = 4
X, LABEL = integers(CODES, B, TOKENS), integers(3, B, seed=1)
NOISE = Noise(7, "test", torch.arange(B))

every = pytest.mark.parametrize("name", METHODS)


def made(name: str, **overrides: Any) -> Any:
    """A method away from its initial weights, so that classes and times count."""
    return perturb(build(method=name, **{"classes": 3, **overrides})).eval()


def sample(method: Any, noise: Noise, label: Tensor | None, **options: Any) -> Tensor:
    known = options.pop("known", None)
    return method.sample(label, noise, Sampling(**{"steps": 5, **options}), known)


@every
@pytest.mark.parametrize("classes", [0, 3])
def test_forward_gives_one_finite_number_per_term_and_image(name: str, classes: int) -> None:
    method = made(name, classes=classes).train()
    terms = method(X, LABEL if classes else None, NOISE, made(name, classes=classes))
    assert set(terms) == set(method.weights)
    assert all(weight > 0 for weight in method.weights.values())
    for term in terms.values():
        assert term.shape == (B,)
        assert term.dtype == torch.float32
        assert term.isfinite().all()


@every
def test_gradients_reach_the_student_and_not_the_teacher(name: str) -> None:
    method, teacher = made(name).train(), made(name)
    torch.stack(list(method(X, LABEL, NOISE, teacher).values())).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    missing = [key for key, value in method.named_parameters() if value.grad is None]
    assert not missing


@every
def test_terms_do_not_depend_on_the_images_beside_them(name: str) -> None:
    """Two processes with half a batch each count what one with the whole batch counts."""
    method, teacher = made(name), made(name)
    whole = method(X, LABEL, NOISE, teacher)
    for rows in (slice(0, 1), slice(1, 4)):
        part = method(X[rows], LABEL[rows], Noise(7, "test", NOISE.rows[rows]), teacher)
        for term, values in part.items():
            assert torch.allclose(values, whole[term][rows], rtol=1e-4, atol=1e-5), term


@every
def test_terms_depend_on_the_seed_and_the_step_and_on_nothing_hidden(name: str) -> None:
    # Half of the classes dropped: all that is random in an autoregressive model's loss.
    method, teacher = (made(name, train={"class_drop": 0.5}) for _ in range(2))
    first = method(X, LABEL, NOISE, teacher)
    torch.manual_seed(1234)
    again, later = method(X, LABEL, NOISE, teacher), method(X, LABEL, NOISE.at(1), teacher)
    for term, values in first.items():
        assert torch.equal(values, again[term])
        assert not torch.equal(values, later[term])


@every
def test_samples_are_codes_and_depend_on_the_seed(name: str) -> None:
    method = made(name)
    tokens = sample(method, NOISE, LABEL)
    assert tokens.shape == (B, TOKENS)
    assert tokens.dtype == torch.int64
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < CODES
    assert torch.equal(sample(method, NOISE, LABEL), tokens)
    assert not torch.equal(sample(method, Noise(8, "test", NOISE.rows), LABEL), tokens)


@every
@pytest.mark.parametrize("options", [{}, {"sampler": "ddim"}, {"guidance": 2.0}], ids=["ancestral", "ddim", "guided"])
def test_samples_do_not_depend_on_the_size_of_their_batch(name: str, options: dict[str, Any]) -> None:
    method, rows, label = made(name), torch.arange(10), integers(3, 10)
    if options.get("sampler", "ancestral") not in method.samplers:
        with pytest.raises(ConfigError, match="sampler ddim is not one of"):
            sample(method, NOISE, LABEL, **options)
        return
    batches = []
    for size in (5, 2):
        parts = [rows[start : start + size] for start in range(0, 10, size)]
        batches.append(torch.cat([sample(method, Noise(7, "test", part), label[part], **options) for part in parts]))
    assert torch.equal(batches[0], batches[1])
    assert len(batches[0].unique(dim=0)) > 2


@every
@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize("steps", [1, 4])
def test_network_calls_are_those_really_made(
    name: str, steps: int, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images through the network per image that comes out."""
    method = made(name)
    forward, images = method.network.forward, []

    def count(z: Tensor, *rest: Any) -> Tensor:
        images.append(len(z))
        return forward(z, *rest)

    monkeypatch.setattr(method.network, "forward", count)
    sample(method, NOISE, LABEL, steps=steps, guidance=guidance)
    assert sum(images) / B == method.network_calls(Sampling(steps, guidance=guidance))


@every
def test_the_class_steers_samples_where_there_are_classes(name: str) -> None:
    method, rows = made(name), torch.arange(20)
    one, other = (sample(method, Noise(7, "test", rows), torch.full((20,), label)) for label in (0, 1))
    assert not torch.equal(one, other)


@every
def test_classes_are_ignored_by_a_method_without_them(name: str) -> None:
    method, teacher = made(name, classes=0), made(name, classes=0)
    assert torch.equal(sample(method, NOISE, LABEL), sample(method, NOISE, None))
    assert torch.equal(method.bound(X, LABEL, NOISE, 2), method.bound(X, None, NOISE, 2))
    ours, theirs = method(X, LABEL, NOISE, teacher), method(X, None, NOISE, teacher)
    assert all(torch.equal(ours[term], theirs[term]) for term in ours)


USES = {
    "forward": lambda method: method(X, LABEL, NOISE, method),
    "sample": lambda method: sample(method, NOISE, LABEL),
    "bound": lambda method: method.bound(X, LABEL, NOISE, 3),
}


@every
@pytest.mark.parametrize(
    "use",
    [
        "forward",
        "sample",
        pytest.param(
            "bound",
        ),
    ],
)
def test_no_random_number_is_used_twice(name: str, use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One address, one use: a number used for two things ties them together."""
    words, addresses = Noise._words, []

    def record(self: Noise, draw: str, count: int) -> Tensor:
        addresses.append((self.seed, self.purpose, self.step, draw))
        return words(self, draw, count)

    monkeypatch.setattr(Noise, "_words", record)
    USES[use](made(name).train())
    # The bound of an autoregressive model is exact: nothing is drawn.
    assert addresses or (use, name) == ("bound", "autoregressive")
    assert sorted(set(addresses)) == sorted(addresses)


@every
def test_the_bound_is_one_finite_number_of_nats_per_image(name: str) -> None:
    method = made(name)
    bound = method.bound(X, LABEL, NOISE, 4)
    assert bound.shape == (B,)
    assert bound.isfinite().all()
    assert (bound > 0).all()
    assert torch.allclose(method.bound(X[2:], LABEL[2:], Noise(7, "test", NOISE.rows[2:]), 4), bound[2:], rtol=1e-4)


@every
def test_diagnostics_are_numbers_with_names(name: str) -> None:
    found = made(name).diagnostics(X, LABEL, NOISE)
    assert found
    assert all(isinstance(key, str) and type(value) is float for key, value in found.items())


# What follows is about VQ-LCMD alone.
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


def test_about_the_given_share_of_classes_becomes_null_in_training() -> None:
    rows = torch.arange(2000)
    method = made("lcmd", train={"class_drop": 0.25})
    labels = method.drop_classes(torch.zeros(2000, dtype=torch.int64), Noise(7, "test", rows))
    assert labels.unique().tolist() == [0, 3]
    assert float((labels == 3).float().mean()) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 2000) ** 0.5)


def test_an_equal_teacher_at_the_same_time_leaves_no_inconsistency(monkeypatch: pytest.MonkeyPatch) -> None:
    """With s = t the DDIM step stays where it is, and the teacher says what the student says."""
    method = made("lcmd", lambda_rec=0.0, lambda_diff=0.0, lambda_ce=0.0)
    uniform = Noise.uniform

    def one(self: Noise, draw: str, *shape: int) -> Tensor:
        return torch.ones(B) if draw == "earlier_time" else uniform(self, draw, *shape)

    assert (method(X, LABEL, NOISE, method)["cm"] > 1e-4).all()
    monkeypatch.setattr(Noise, "uniform", one)
    assert method(X, LABEL, NOISE, method)["cm"].abs().max() < 1e-5


@pytest.mark.parametrize("weighting", ["simple", "vlb"])
def test_the_teacher_is_asked_at_earlier_times_spread_evenly_from_the_clean_end(weighting: str) -> None:
    """s ~ U(start, t), and t over the whole schedule: Kolmogorov's test, above 1.95 once in a thousand."""
    rows = torch.arange(1000)
    method = made("lcmd", weighting=weighting, train={"batch_size": 1000})
    asked, earlier = [], method.earlier
    method.earlier = lambda z, s, t, label: asked.append((s, t)) or earlier(z, s, t, label)
    method(integers(CODES, 1000, TOKENS), integers(3, 1000), Noise(7, "test", rows), method)
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
