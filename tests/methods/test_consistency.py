"""What consistency matching teaches, by the way it steps back, on the distribution of test_toy.py."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.factory import build, integers, made, normal, train_settings
from tests.methods.test_toy import SHIFT, STATES, TABLE, K, N, P, drawn, exact_tokens, method, total_variation
from vqlcmd.diffusion import gaussian
from vqlcmd.diffusion.consistency import NEAR, SEGMENTS, STEPS, TIMES, Noised
from vqlcmd.diffusion.schedule import build_schedule
from vqlcmd.diffusion.weighting import WEIGHTINGS
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.resume import State
from vqlcmd.tokens.shards import Split
from vqlcmd.training.loop import train

B = 32
ALL = TABLE[STATES]


def unused(z_BND: Tensor, t: Tensor) -> Tensor:
    raise AssertionError("only the step along the model asks the teacher for its guess")


def misjudged(name: str, t_share: float, s_share: float, repeats: int) -> float:
    """Mean of |E[P(x_i | z_s) | z_t] - P(x_i | z_t)|: x by listing, the noise of z_s by `repeats` draws."""
    model = method()
    schedule = model.schedule
    t = schedule.between(torch.full((B,), t_share))
    s = schedule.start + (t - schedule.start) * s_share
    drawn = torch.multinomial(P, B, replacement=True, generator=torch.Generator().manual_seed(0))
    z_BND = gaussian.diffuse(schedule, ALL[drawn], t, normal(B, N, 2))
    # One row for each z_t and each x that it can come from, with the noise that this x would mean.
    z, psi = z_BND.repeat_interleave(len(P), dim=0), ALL.repeat(B, 1, 1)
    t, s = t.repeat_interleave(len(P)), s.repeat_interleave(len(P))
    alpha, sigma = (f(t).float()[:, None, None] for f in (schedule.alpha, schedule.sigma))
    eps = (z - alpha * psi) / sigma
    weight = (P.log().float() - 0.5 * eps.square().sum(dim=(1, 2)).view(B, -1)).softmax(dim=1)[..., None, None]
    target = torch.zeros(B, N, K)
    for repeat in range(repeats):
        rng = CounterRNG(repeat, "toy", torch.arange(len(z)))
        z_s = STEPS[name].move(schedule, Noised(z, psi, eps, t), s, unused, rng)
        target += (weight * model.network(z_s, s).exp().view(B, -1, N, K)).sum(dim=1) / repeats
    truth = model.network(z_BND, t[:: len(P)]).exp()
    return float((target - truth).abs().mean())


@pytest.mark.parametrize(("t", "s"), [(0.3, 0.5), (0.6, 0.5), (0.95, 0.5), (0.95, 0.9)])
def test_along_the_posterior_the_truth_is_what_its_targets_average_to(t: float, s: float) -> None:
    """z_s ~ q(z_s | z_t, x) leaves x independent of z_t given z_s, so that the gradient of L_cm vanishes at the truth.

    E[P(x | z_s) | z_t] = P(x | z_t); 100 draws leave a mean error of some 0.004.
    """
    assert misjudged("posterior", t, s, 100) < 0.007


def test_along_the_data_with_the_same_noise_they_do_not_but_at_the_clean_end() -> None:
    """z_t and a z_s of the same noise know x together, each alone does not: at pure noise z_t is the noise itself.

    Nothing of x is in z_t there, and yet the target, averaged over x, still depends on z_t.
    """
    assert misjudged("data", 0.95, 0.5, 1) > 0.08
    for t in (0.3, 0.6, 0.95):
        assert misjudged("data", t, 0.0, 1) < 1e-5


class Nearest(nn.Module):
    """Certain of the code whose own noised place alpha e_k is nearest to z: right at the clean end, and a lie later."""

    def __init__(self, schedule: Any):
        super().__init__()
        self.schedule = schedule

    def forward(self, z_BND: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        alpha = self.schedule.alpha(t).float()[:, None, None]
        nearest_BN = torch.cdist(z_BND, (alpha * SQUARE).expand(len(z_BND), -1, -1)).argmin(dim=2)
        return 200 * nn.functional.one_hot(nearest_BN, K).float()


SQUARE = torch.tensor([[1.5, 0.0], [0.0, 1.5], [-1.5, 0.0], [0.0, -1.5]])


@pytest.mark.parametrize("name", STEPS)
def test_along_the_model_a_confident_lie_agrees_with_itself_and_along_the_others_it_is_seen(name: str) -> None:
    """A step toward the nearest code keeps it the nearest one, so that L_rec and L_cm are both 0."""
    lambdas: dict[str, Any] = {"lambda_rec": 1.0, "lambda_diff": 0.0, "lambda_cm": 1.0, "lambda_ce": 1.0}
    model = method(consistency_step=name, drop=0.0, train={"batch_size": 1000}, **lambdas)
    model.embedding.weight.data.copy_(SQUARE)
    model.network = Nearest(model.schedule)
    terms = model(integers(K, 1000, N), None, CounterRNG(0, "toy", torch.arange(1000)), model)
    assert float(terms["rec"].mean()) < 1e-3
    assert float(terms["ce"].mean()) > 20
    assert (float(terms["cm"].mean()) < 1e-3) == (name == "model")


def test_the_step_along_the_data_is_the_ddim_step_along_the_true_embedding() -> None:
    model = method()
    psi, eps = ALL[:B], normal(B, N, 2)
    t, s = (model.schedule.between(torch.full((B,), share)) for share in (0.7, 0.2))
    now = Noised(gaussian.diffuse(model.schedule, psi, t, eps), psi, eps, t)
    rng = CounterRNG(0, "toy", torch.arange(B))
    z_s = STEPS["data"].move(model.schedule, now, s, unused, rng)
    assert torch.allclose(z_s, gaussian.ddim_step(model.schedule, now.z, psi, s, t), atol=1e-5)


@pytest.mark.parametrize("name", STEPS)
def test_the_teacher_sees_the_dropped_tokens_of_the_student_and_no_gradient(name: str) -> None:
    """With all tokens dropped, what the teacher is asked does not depend on them."""
    model, teacher = (made("lcmd", classes=0, consistency_step=name, lambda_rec=0.0) for _ in range(2))
    model.drop, seen = 1.1, []
    teacher.network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    tokens, rng = integers(8, 4, 4), CounterRNG(7, "test", torch.arange(4))
    for each in (tokens, (tokens + 1) % 8):
        model(each, None, rng, teacher)["cm"].sum().backward()
    assert torch.equal(seen[len(seen) // 2 - 1], seen[-1])
    assert len(seen) == 2 * (1 + STEPS[name].passes)
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("name", TIMES)
def test_the_teachers_time_lies_between_the_clean_end_and_that_of_the_student(name: str) -> None:
    schedule, u = method().schedule, torch.rand(10_000, dtype=torch.float64)
    share = torch.rand(10_000, dtype=torch.float64)
    t = schedule.between(share)
    way = (TIMES[name](schedule, t, u) - schedule.start) / (schedule.end - schedule.start)
    assert (way >= 0).all()
    assert (way <= share + 1e-12).all()
    if name == "uniform":
        assert torch.allclose(way, share * u)
    elif name == "near":
        assert (way >= (1 - NEAR) * share - 1e-12).all()
        assert torch.corrcoef(torch.stack([1 - way / share, u]))[0, 1] > 0.999
    else:
        assert sorted({round(each * SEGMENTS, 9) for each in way.tolist()}) == list(range(SEGMENTS))
        assert ((share - way) * SEGMENTS < 1 + 1e-9).all()


@pytest.mark.parametrize(("shift", "clean"), [(0, 2), (0, 6), (-2, 4), (-4, 2), (2, 4)])
def test_segments_begin_no_later_than_their_times_not_even_by_a_rounding_error(shift: float, clean: float) -> None:
    """The last time of all may be the end, or one bit before it, and belongs to the last segment."""
    schedule = build_schedule(name="cosine", shift=shift, log_snr_min=-12.0, log_snr_max=clean)
    t = WEIGHTINGS["vlb"](schedule).time(torch.linspace(0, 1, 8 * SEGMENTS + 1, dtype=torch.float64))
    edges = schedule.between(torch.arange(1, SEGMENTS + 1).double() / SEGMENTS)
    for times in (t, edges, torch.nextafter(edges, torch.zeros_like(edges))):
        s = TIMES["segments"](schedule, times, times)
        assert (s <= times).all()
        assert float(s[-1]) == pytest.approx(schedule.end - (schedule.end - schedule.start) / SEGMENTS)


def test_consistency_matching_reaches_the_table_unless_its_gradient_is_the_networks_alone() -> None:
    """The loss and the network's gradient are the same: the same z_t, only nothing goes on from there."""
    found = {}
    for gradient in ("full", "network"):
        model = made("lcmd", classes=0, consistency_gradient=gradient)
        teacher = made("lcmd", classes=0, consistency_step="posterior")
        terms = model(integers(8, 4, 4), None, CounterRNG(7, "test", torch.arange(4)), teacher)
        terms["cm"].sum().backward()
        found[gradient] = (terms["cm"], model.network.output.weight.grad, model.embedding.weight.grad)
    assert torch.allclose(found["full"][0], found["network"][0], rtol=1e-5)
    assert torch.allclose(found["full"][1], found["network"][1], rtol=1e-4, atol=1e-6)
    assert found["full"][2].abs().max() > 0
    assert found["network"][2] is None


@pytest.mark.parametrize("drops", [True, False])
def test_reconstruction_sees_dropped_tokens_or_all_of_them(drops: bool) -> None:
    """With every token dropped, only a z_start without dropping depends on the tokens; z_t never does."""
    model = made("lcmd", classes=0, drop_reconstruction=drops)
    model.drop, seen = 1.1, []
    model.network.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    tokens, teacher = integers(8, 4, 4), made("lcmd", classes=0)
    for each in (tokens, (tokens + 1) % 8):
        model(each, None, CounterRNG(7, "test", torch.arange(4)), teacher)
    (z_t, z_start), (other_t, other_start) = (each.chunk(2) for each in seen)
    assert torch.equal(z_t, other_t)
    assert torch.equal(z_start, other_start) == drops


def learned(folder: Path, name: str, seed: int) -> tuple[float, float]:
    """A small network after 1,000 steps of L_rec + L_cm alone, on a fixed table.

    Total variation of its samples, and KL(truth || answer) in nats per token at 0.9 of the way to noise.
    """
    lambdas: dict[str, Any] = {"lambda_rec": 1.0, "lambda_diff": 0.0, "lambda_cm": 1.0, "lambda_ce": 0.0}
    settings = {
        "batch_size": 64,
        "learning_rate": 3e-3,
        "warmup": 50,
        "ema": 0.95,
        "log_every": 500,
        "save_every": 1000,
    }
    sizes: dict[str, Any] = {"tokens": N, "codes": K, "embedding_dim": 2, "network": {"width": 32}}
    model = build(**sizes, s=SHIFT, drop=0.0, consistency_step=name, train={"batch_size": 64}, seed=seed, **lambdas)
    model.embedding.weight.data.copy_(TABLE)
    model.embedding.requires_grad_(False)
    tokens = exact_tokens(20_000)
    split = Split(tokens.int(), torch.zeros(len(tokens), dtype=torch.int64), torch.arange(len(tokens)))
    with State(folder) as state:
        average, _ = train(model, split, split, train_settings(**settings), steps=1000, seed=seed, state=state)
    teacher: Any = average
    few = exact_tokens(4000)
    t = model.schedule.between(torch.full((len(few),), 0.9))
    z_BND = gaussian.diffuse(model.schedule, TABLE[few], t, normal(len(few), N, 2, seed=1))
    truth, answer = method().network(z_BND, t), teacher.network(z_BND, t).detach().log_softmax(dim=2)
    return total_variation(drawn(teacher, 4000, steps=50)), float((truth.exp() * (truth - answer)).sum(dim=2).mean())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_reconstruction_and_consistency_alone_learn_the_distribution_but_along_the_model(
    tmp_path: Path, seed: int
) -> None:
    """Measured with seeds 0 to 2: total variations of 0.10 to 0.12 along the posterior, 0.10 to 0.11 along the data,
    0.45 to 0.80 along the model; divergences of 0.002 to 0.004, 0.087 to 0.094, and 5.4 to 6.7 nats.

    Along the data the answers at late times are biased, as the test of its targets says.
    """
    found = {name: learned(tmp_path / name, name, seed) for name in STEPS}
    assert found["posterior"][0] < 0.15
    assert found["posterior"][1] < 0.01
    assert found["data"][0] < 0.2
    assert 0.04 < found["data"][1] < 0.2
    assert found["model"][0] > 0.3
    assert found["model"][1] > 1
