"""VQ-LCMD whose network sees what it expected before, and times that it learns to draw."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factory import CODES, TOKENS, build, integers, made, sampling
from tests.methods.test_toy import ENTROPY, Posterior, drawn, exact_tokens, method, total_variation
from vqlcmd.diffusion.schedule import Cosine
from vqlcmd.diffusion.weighting import BINS, Warped
from vqlcmd.rng import CounterRNG

B = 400
X, LABEL = integers(CODES, B, TOKENS), integers(3, B, seed=1)
NOISE = CounterRNG(7, "test", torch.arange(B))


def watched(model: Any) -> list[Tensor]:
    """What its network is going to see."""
    seen: list[Tensor] = []
    model.network.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    return seen


def test_a_fresh_model_is_the_one_without_it() -> None:
    """The same weights from the seed, and a map that starts as 0: the same terms and samples."""
    plain, fresh = (build(classes=3, self_conditioning=share, train={"batch_size": B}) for share in (0.0, 0.5))
    assert [name for name, _ in fresh.named_parameters() if name not in dict(plain.named_parameters())] == [
        "previous.weight"
    ]
    ours, theirs = (model(X, LABEL, NOISE, model) for model in (plain, fresh))
    assert all(torch.equal(ours[term], theirs[term]) for term in ours)
    few, how = CounterRNG(7, "test", torch.arange(8)), sampling(4)
    assert torch.equal(plain.eval().sample(LABEL[:8], few, how), fresh.eval().sample(LABEL[:8], few, how))


def test_a_share_of_the_images_sees_the_first_look_at_the_same_state_in_training() -> None:
    model = made("lcmd", self_conditioning=0.3, lambda_cm=0.0, train={"batch_size": B})
    seen = watched(model)
    model(X, LABEL, NOISE, model)
    first, second = seen
    changed = (first != second).flatten(1).any(dim=1)
    at_t, at_0 = changed.chunk(2)
    assert torch.equal(at_t, at_0)
    assert float(at_t.float().mean()) == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / B) ** 0.5)
    t = model.weighting.time(NOISE.stratified("time", B))
    times, labels = torch.cat([t, torch.full_like(t, model.schedule.start)]), torch.cat([LABEL, LABEL])
    labels = torch.cat([model.drop_classes(LABEL, NOISE)] * 2)
    guess = model.previous(model.psi_hat(model.network(first, times, labels)))
    assert torch.allclose(second[changed], (first + guess)[changed], atol=1e-5)


def test_the_teacher_sees_what_the_student_saw() -> None:
    model, teacher = (made("lcmd", self_conditioning=1.0, consistency_step="data") for _ in range(2))
    given: list[Tensor] = []
    teacher.previous.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    model.previous.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    model(X[:4], LABEL[:4], CounterRNG(7, "test", torch.arange(4)), teacher)
    student, shared = given
    assert torch.equal(shared, student[:4])
    assert not shared.requires_grad


def test_a_sampler_hands_each_step_what_the_one_before_expected() -> None:
    model = made("lcmd", self_conditioning=0.5)
    seen, given = watched(model), list[Tensor]()
    model.previous.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    answers: list[Tensor] = []
    model.network.register_forward_hook(lambda _, args, logits: answers.append(model.psi_hat(logits)))
    model.sample(LABEL[:6], CounterRNG(7, "test", torch.arange(6)), sampling(3))
    assert len(seen) == 4
    assert all(torch.equal(before, answer) for before, answer in zip(given, answers[:3], strict=True))


@pytest.mark.parametrize(
    "changes", [{"self_conditioning": 0.5}, {"weighting": "warped"}, {"likelihood": True}], ids=str
)
@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_terms_and_samples_do_not_depend_on_the_images_beside_them(changes: dict[str, Any], sampler: str) -> None:
    model, teacher = (made("lcmd", **changes, train={"batch_size": 6}) for _ in range(2))
    if model.weighting.learns:
        model.weighting.log_rise.data[:50] += 2
    rows = torch.arange(6)
    whole = model(X[:6], LABEL[:6], CounterRNG(7, "test", rows), teacher)
    assert set(whole) == set(model.weights)
    tokens = model.sample(LABEL[:6], CounterRNG(7, "test", rows), sampling(4, sampler))
    for part in (slice(0, 2), slice(2, 6)):
        rng = CounterRNG(7, "test", rows[part])
        terms = model(X[part], LABEL[part], rng, teacher)
        assert all(torch.allclose(terms[term], whole[term][part], rtol=1e-4, atol=1e-5) for term in whole)
        assert torch.equal(model.sample(LABEL[part], rng, sampling(4, sampler)), tokens[part])


def test_gradients_reach_what_is_learned() -> None:
    for changes in ({"self_conditioning": 1.0}, {"weighting": "warped"}):
        model, teacher = made("lcmd", **changes).train(), made("lcmd", **changes)
        torch.stack(
            list(model(X[:4], LABEL[:4], CounterRNG(7, "t", torch.arange(4)), teacher).values())
        ).sum().backward()
        assert not [name for name, each in model.named_parameters() if each.grad is None]
        assert all(each.grad is None for each in teacher.parameters())


class Second(Posterior):
    """Right only where it is told what it said at the first look: else it knows nothing."""

    def forward(self, z_BND: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        told = z_BND[..., 2:].abs().sum(dim=(1, 2)) > 0
        return torch.where(told[:, None, None], super().forward(z_BND[..., :2], t), 0.0)


def exact() -> Any:
    """The exact posterior, for those who hand on what it said."""
    model = method(self_conditioning=0.5)
    model.network = Second(model.schedule)
    model._input = lambda z, before: torch.cat([z, torch.zeros_like(z) if before is None else before], dim=2)
    return model


def test_with_the_exact_posterior_sampling_by_second_looks_reproduces_the_distribution() -> None:
    """Of a hundred steps all but the first are told what the one before said."""
    assert total_variation(drawn(exact(), 6000)) < 0.036


def test_the_bound_is_that_of_a_second_look() -> None:
    model = exact()
    tokens = exact_tokens(1000)
    means = [model.bound(tokens, None, CounterRNG(seed, "toy", torch.arange(1000)), 64).mean() for seed in range(4)]
    assert float(torch.stack(means).mean()) == pytest.approx(ENTROPY, abs=0.03)


def test_warped_times_make_the_cross_entropy_even() -> None:
    """Fit to F(v) = 3 v^2 at random times: F(v) / F(1) = u has v = sqrt(u)."""
    weighting = Warped(Cosine(0.0, -12, 6))
    start, end = weighting.schedule.start, weighting.schedule.end
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.05)
    for step in range(800):
        v = torch.rand(256, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        optimizer.zero_grad()
        weighting.error(start + (end - start) * v, 3 * v.float() ** 2).mean().backward()
        optimizer.step()
    u = torch.linspace(0, 1, 41, dtype=torch.float64)
    found = (weighting.steps(u) - start) / (end - start)
    assert (found - u.sqrt()).abs().max() < 0.03
    assert found[[0, -1]].tolist() == pytest.approx([0, 1])
    assert (weighting.time(u).diff() > 0).all()


def test_warping_starts_with_even_times_and_its_error_is_that_of_a_line() -> None:
    weighting = Warped(Cosine(-1.0, -12, 6))
    u = torch.linspace(0, 1, 33, dtype=torch.float64)
    assert torch.allclose(weighting.time(u), weighting.schedule.between(u))
    nats = torch.linspace(0, 2, 33)
    assert torch.allclose(weighting.error(weighting.schedule.between(u), nats), (u.float() - nats) ** 2, atol=1e-6)
    assert len(weighting.log_rise) == BINS


def test_with_the_exact_posterior_sampling_at_warped_times_reproduces_the_distribution() -> None:
    """Times three times as dense at one end: 100 steps are enough all the same."""
    model = method(weighting="warped")
    model.weighting.log_rise.data[50:] += 1.1
    assert total_variation(drawn(model, 6000)) < 0.036
