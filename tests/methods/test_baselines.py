"""D3PM and VQ-Diffusion: schedules, losses, which steps are drawn, what truncation keeps."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.diffusion.test_markov import by_bayes, matrix, states
from tests.factory import CODES, TOKENS, build, integers, made, normal, sampling
from vqlcmd import methods
from vqlcmd.diffusion.discrete import DiscreteDiffusion
from vqlcmd.diffusion.markov import Kernel
from vqlcmd.methods import d3pm
from vqlcmd.methods.vq_diffusion import SCHEDULES, truncated
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import distributed
from vqlcmd.runtime.errors import ConfigError

B, T = 12, 20
X, LABEL = integers(CODES, B, TOKENS), integers(3, B, seed=1)
NOISE = CounterRNG(7, "test", torch.arange(B))
CHAINS = [name for name in methods.METHODS if issubclass(methods.method_class(name), DiscreteDiffusion)]
chains = pytest.mark.parametrize("name", CHAINS)


def test_d3pm_keeps_tokens_along_a_cosine_that_is_not_squared() -> None:
    """f(u) = cos((u + 0.008) / 1.008 pi / 2); the last step, which would replace all, replaces 0.999."""
    for timesteps in (2, 20, 1000):
        keep = d3pm.cosine(timesteps)
        f = [math.cos((t / timesteps + 0.008) / 1.008 * math.pi / 2) for t in range(timesteps + 1)]
        assert keep.shape == (timesteps + 1,)
        assert keep.dtype == torch.float64
        assert keep[:-1].tolist() == pytest.approx([each / f[0] for each in f[:-1]], rel=1e-9)
        assert float(keep[-1] / keep[-2]) == pytest.approx(0.001, rel=1e-9)


@pytest.mark.parametrize("timesteps", [4, 100, 200])
def test_vq_diffusions_paper_masks_up_to_nine_tenths_and_replaces_up_to_a_tenth(timesteps: int) -> None:
    keep, mask = SCHEDULES["paper"](timesteps)
    share = [t / timesteps for t in range(timesteps + 1)]
    assert mask.tolist() == pytest.approx([0.9 * each for each in share], abs=1e-12)
    assert (1 - keep - mask).tolist() == pytest.approx([0.1 * each for each in share], abs=1e-12)


@pytest.mark.parametrize("timesteps", [4, 100, 200])
def test_vq_diffusions_released_code_masks_alone_but_for_a_millionth(timesteps: int) -> None:
    keep, mask = SCHEDULES["released"](timesteps)
    assert (keep[0], mask[0]) == (1, 0)
    for found, first, last in ((keep, 0.99999, 9e-6), (mask, 9e-6, 0.99999)):
        line = [first + (last - first) * step / (timesteps - 1) for step in range(timesteps)]
        assert found[1:].tolist() == pytest.approx(line, rel=1e-9)
    assert (1 - keep - mask)[1:].tolist() == pytest.approx([1e-6] * timesteps, rel=1e-6)


@pytest.mark.parametrize("timesteps", [2, 100, 1000])
@chains
def test_every_schedule_of_a_chain_only_ever_loses_tokens_and_ends_with_next_to_none(name: str, timesteps: int) -> None:
    for schedule in methods.method_class(name).schedules:
        kernel = build(method=name, discrete={"timesteps": timesteps, "schedule": {name: schedule}}).kernel
        keep, mask = kernel.keep, kernel.mask
        assert (keep[0], mask[0]) == (1, 0)
        assert (keep.diff() < 0).all()
        assert (mask.diff() >= 0).all()
        assert ((keep > 0) | (torch.arange(timesteps + 1) == timesteps)).all()
        assert (keep + mask <= 1 + 1e-12).all()
        assert float(keep[-1]) < 2e-3


@pytest.mark.parametrize(
    ("name", "extra"),
    [("d3pm", 0), ("vq_diffusion", 1), ("maskgit", 1), ("mdlm", 1), ("flow_matching", 1), ("autoregressive", 1)],
)
def test_the_input_table_has_a_row_for_every_state_and_the_table_of_codes_has_not(name: str, extra: int) -> None:
    method = made(name)
    assert len(method.embedding.weight) == CODES + extra
    assert torch.equal(method.table, method.embedding.weight[:CODES])


@chains
def test_times_are_the_steps_from_one_to_t_each_alike(name: str) -> None:
    method = made(name)
    u = (torch.arange(10 * T) + 0.5) / (10 * T)
    assert torch.bincount(method.steps_at(u), minlength=T + 1).tolist() == [0] + [10] * T
    assert method.steps_at(torch.tensor([1e-7, 1.0])).tolist() == [1, T]
    assert method.network_time(torch.tensor([1, 5, T])).tolist() == pytest.approx([0.05, 0.25, 1])


@chains
def test_more_steps_than_the_chain_has_are_refused_in_one_line(name: str) -> None:
    """sample() says it too, and not only who asks before."""
    method = made(name)
    method.check(sampling(T))
    for ask in (method.check, lambda how: method.sample(LABEL, NOISE, how)):
        with pytest.raises(ConfigError, match=r"^sample_steps 21 is more than the 20 steps .* discrete.timesteps: "):
            ask(sampling(T + 1))


@pytest.mark.parametrize(
    ("name", "schedule"),
    [(name, each) for name in CHAINS for each in methods.method_class(name).schedules],
)
def test_the_loss_is_the_divergence_of_the_posteriors_written_out(name: str, schedule: str) -> None:
    """By matrices, at the states and with the logits of that very pass: weights 1 and 0.001, or over T P(t)."""
    steps, history = 6, torch.linspace(1, 2, 6)
    method = build(
        method=name, codes=5, discrete={"timesteps": steps, "schedule": {name: schedule}}, train={"batch_size": B}
    ).train()
    if name == "vq_diffusion":
        method.history.copy_(history)
        method.drawn.fill_(11)
    seen: dict[str, Any] = {}
    method.embedding.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    method.network.register_forward_hook(lambda _, args, logits: seen.update(t=args[1], logits=logits.detach()))
    tokens = X % 5
    terms = {term: values.detach().double() for term, values in method(tokens, None, NOISE, method).items()}
    t = (seen["t"] * steps).round().long()
    assert t.unique().tolist() == [1, 2, 3, 4, 5, 6]
    p_BNK = seen["logits"].double().softmax(dim=2)
    vb = [
        sum(
            divergence(method.kernel, name, token, x, p, int(t[image]))
            for token, x, p in zip(tokens[image].tolist(), seen["x"][image].tolist(), p_BNK[image], strict=True)
        )
        / TOKENS
        for image in range(B)
    ]
    cross_entropy = -p_BNK.gather(2, tokens[..., None]).log().mean(dim=(1, 2))
    if name == "d3pm":
        assert method.weights == {"vb": 1.0, "ce": 0.001}
        weight, other = torch.ones(B), cross_entropy
    else:
        assert method.weights == {"vb": 1.0, "aux": 0.001}
        importance = history.clamp_min(float(history[1])).sqrt() + 1e-4
        weight = importance.sum() / importance[t - 1] / steps
        other = weight * (2 - (t - 1) / steps) * cross_entropy
    assert torch.allclose(terms["vb"], weight * torch.tensor(vb, dtype=torch.float64), rtol=1e-4, atol=1e-6)
    assert torch.allclose(terms["ce" if name == "d3pm" else "aux"], other, rtol=1e-4)


def divergence(kernel: Kernel, name: str, token: int, x: int, p: Tensor, t: int) -> float:
    """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) of one token; -log p(x_0 | x_1) at t = 1."""
    if t == 1:
        return -float(p[token].log())
    bayes = by_bayes(kernel, t - 1, t)[x]
    model = p @ bayes
    if name == "d3pm":
        model = matrix(kernel, t - 1, t)[:, x] * (p @ matrix(kernel, 0, t - 1)[:5])
        model = model / model.sum()
    assert x in states(kernel)
    q = bayes[token]
    return sum(float(a) * math.log(float(a / b)) for a, b in zip(q, model, strict=True) if a > 0)


HISTORY = torch.tensor([9.0, 4.0, 0.25, 0.0, 1.0])
SQUARE_ROOTS = torch.tensor([2.0, 2.0, 0.5, 0.0, 1.0]) + 1e-4


def vq_diffusion(drawn: float = 11, timesteps: int = 5, **overrides: Any) -> Any:
    """VQ-Diffusion of 5 steps that has seen `HISTORY`."""
    method = made("vq_diffusion", discrete={"timesteps": timesteps}, **overrides)
    method.history.copy_(HISTORY)
    method.drawn.fill_(drawn)
    return method


def test_steps_are_drawn_alike_until_each_was_drawn_more_than_ten_times() -> None:
    u = (torch.arange(1000) + 0.5) / 1000
    method = vq_diffusion()
    method.drawn[2] = 10
    t, probability = method.draw_steps(u)
    assert torch.bincount(t).tolist() == [0] + [200] * 5
    assert probability.tolist() == pytest.approx([0.2] * 1000)


def test_steps_are_then_drawn_by_the_root_of_their_mean_squared_loss() -> None:
    """Plus 1e-4, so that none is forgotten; the second step's stands for the first one's, which is a likelihood."""
    n = 100_000
    t, probability = vq_diffusion().draw_steps((torch.arange(n) + 0.5) / n)
    exact = SQUARE_ROOTS / SQUARE_ROOTS.sum()
    assert (torch.bincount(t, minlength=6)[1:] / n).tolist() == pytest.approx(exact.tolist(), abs=2e-5)
    assert torch.allclose(probability, exact[t - 1])
    assert vq_diffusion().draw_steps(torch.tensor([1e-8, 1.0]))[0].tolist() == [1, 5]


def test_the_weights_make_the_loss_an_unbiased_estimate_of_the_mean_over_steps() -> None:
    n, loss = 1_000_000, normal(5, dtype=torch.float64)
    t, probability = vq_diffusion().draw_steps((torch.arange(n) + 0.5) / n)
    assert float((loss[t - 1] / (5 * probability)).mean()) == pytest.approx(float(loss.mean()), abs=2e-3)


def losses(method: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
    """One pass: the steps that were drawn, all alike, and the bound's term of each image, summed over its tokens."""
    times: list[Tensor] = []
    handle = method.network.register_forward_pre_hook(lambda _, args: times.append(args[1]))
    terms = method(X[rows], LABEL[rows], CounterRNG(7, "test", rows), method)
    handle.remove()
    return (times[0] * 5).round().long(), terms["vb"].detach() * TOKENS


FEW: Any = {"drawn": 5, "train": {"batch_size": B}}


def test_the_history_moves_a_tenth_of_the_way_to_the_squared_loss_of_the_steps_that_were_drawn() -> None:
    method = vq_diffusion(**FEW).train()
    t, loss = losses(method, torch.tensor([0, 1, 3, 4, 5]))
    assert torch.equal(method.history, HISTORY)
    method.finish_step()
    expected, counts = HISTORY.clone(), torch.full((5,), 5.0)
    for step in range(5):
        crop_views = loss[t == step + 1].square()
        counts[step] += len(crop_views)
        if len(crop_views):
            expected[step] = 0.9 * HISTORY[step] + 0.1 * crop_views.mean()
    assert 0 < int((counts == 5).sum()) < 5
    assert torch.allclose(method.history, expected)
    assert torch.equal(method.drawn, counts)


def test_only_training_is_remembered_and_it_is_part_of_the_saved_state() -> None:
    method = vq_diffusion(**FEW)
    losses(method, torch.arange(2))
    method.train().bound(X, LABEL, NOISE, 2)
    losses(method, torch.tensor([11]))
    method.finish_step()
    state = method.state_dict()
    assert torch.equal(state["history"] != HISTORY, torch.tensor([False] * 4 + [True]))
    assert state["drawn"].tolist() == [5, 5, 5, 5, 6]


def test_a_batch_in_pieces_is_remembered_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, one piece after the other; in two, pretended, the mean over both and the count of both."""
    whole, pieces, first, second = (vq_diffusion(**FEW).train() for _ in range(4))
    upper, lower = torch.arange(B // 3), torch.arange(B // 3, B)
    losses(whole, torch.arange(B))
    whole.finish_step()
    for rows in (upper, lower):
        losses(pieces, rows)
    pieces.finish_step()

    sent: list[list[Tensor]] = []
    monkeypatch.setattr(distributed, "world", lambda: 2)
    monkeypatch.setattr(distributed, "average", lambda values: sent.append([value.clone() for value in values]))
    losses(second, lower)
    second.finish_step()

    def average(values: list[Tensor]) -> None:
        for value, other in zip(values, sent[0], strict=True):
            value.copy_((value + other) / 2)

    monkeypatch.setattr(distributed, "average", average)
    losses(first, upper)
    first.finish_step()
    for method in (pieces, first):
        assert torch.allclose(method.history, whole.history)
        assert torch.equal(method.drawn, whole.drawn)


P = torch.tensor([0.0625, 0.5, 0.125, 0.25, 0.0625])


@pytest.mark.parametrize(
    ("share", "kept_codes"),
    [(1e-9, [1]), (0.5, [1]), (0.51, [1, 3]), (0.75, [1, 3]), (0.86, [1, 2, 3]), (0.9, [0, 1, 2, 3]), (1.0, range(5))],
)
def test_truncation_keeps_a_code_while_the_mass_before_it_is_less(share: float, kept_codes: Any) -> None:
    """The mass before, in order of size: 0, 1/2, 3/4, 7/8, 15/16. What is kept stays what it was."""
    found = truncated(P.expand(2, 3, 5), share)
    expected = torch.tensor([float(P[code]) if code in kept_codes else 0.0 for code in range(5)])
    assert torch.equal(found, expected.expand(2, 3, 5))


def test_truncation_always_keeps_the_best_code_of_each_token() -> None:
    p_BNK = (3 * normal(20, 6, 50)).softmax(dim=2)
    found = truncated(p_BNK, 1e-9)
    assert torch.equal(found.argmax(dim=2), p_BNK.argmax(dim=2))
    assert ((found > 0).sum(dim=2) == 1).all()


def test_the_sampler_truncates_vq_diffusions_prediction_and_no_other() -> None:
    how = {truncation: sampling(5, truncation=truncation) for truncation in (1e-9, 0.5, 1.0)}
    for name, differ in (("vq_diffusion", True), ("d3pm", False), ("maskgit", False)):
        method = made(name)
        samples = [method.sample(LABEL, NOISE, each) for each in how.values()]
        assert all(torch.equal(samples[0], other) != differ for other in samples[1:])
    logits = normal(2, 3, 5)
    found = made("vq_diffusion").predicted(logits, how[0.5])
    assert torch.equal(found, truncated(logits.softmax(dim=2), 0.5))
