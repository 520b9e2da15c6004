"""The chains on codes against matrices written out: K codes and [mask], float64."""

import math

import pytest
import torch
from torch import Tensor

from tests.factory import integers
from vqlcmd.diffusion.markov import Kernel, kl, one_hot, sample_categorical
from vqlcmd.methods import d3pm
from vqlcmd.methods.vq_diffusion import SCHEDULES, truncated

K, T = 5, 12
KEEP = d3pm.cosine(T)
KERNELS = {
    "d3pm": Kernel(KEEP, torch.zeros_like(KEEP), K),
    "paper": Kernel(*SCHEDULES["paper"](T), K),
    "released": Kernel(*SCHEDULES["released"](T), K),
}
TIMES = [(s, t) for t in range(1, T + 1) for s in range(t)]
STATES = torch.arange(K + 1)
# Of the released schedule's replacements, 1 - keep - mask = 1e-6, float64 has ten digits; of the others', all.
CLOSE = 5e-10
every = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def matrix(kernel: Kernel, s: int, t: int) -> Tensor:
    """q(x_t = column | x_s = row) for all K + 1 states."""
    keep, replace, mask = (float(rate) for rate in kernel.rates(torch.tensor([s]), torch.tensor([t])))
    rows = torch.full((K + 1, K + 1), replace, dtype=torch.float64) + keep * torch.eye(K + 1, dtype=torch.float64)
    rows[:, K] = mask
    # [mask] is never left.
    rows[K] = torch.eye(K + 1, dtype=torch.float64)[K]
    return rows


def states(kernel: Kernel) -> Tensor:
    """Those that a chain from a code can come to: D3PM has no [mask]."""
    return STATES if kernel.mask[-1] > 0 else STATES[:K]


def distribution(*shape: int, seed: int = 0) -> Tensor:
    """Random float64 distributions over the last dimension, some of them nearly certain."""
    random = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(*shape, generator=random, dtype=torch.float64)).softmax(dim=-1)


def by_bayes(kernel: Kernel, s: int, t: int) -> Tensor:
    """q(x_s = j | x_t = x, x_0 = k) as (x, k, j), from the joint distribution of all three."""
    reachable = states(kernel)
    joint = matrix(kernel, 0, s)[:K, None, :] * matrix(kernel, s, t).T[None, reachable]
    assert torch.allclose(joint.sum(dim=2), matrix(kernel, 0, t)[:K, reachable], atol=1e-12)
    return (joint / joint.sum(dim=2, keepdim=True)).transpose(0, 1)


def at(kernel: Kernel, s: int, t: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every state as one image of one token, and the two times as often."""
    x_B1 = states(kernel)[:, None]
    return x_B1, torch.full((len(x_B1),), s), torch.full((len(x_B1),), t)


@every
def test_rates_are_probabilities_and_sum_to_one(kernel: Kernel) -> None:
    for s, t in TIMES:
        rows = matrix(kernel, s, t)
        assert rows.min() >= -1e-15
        assert torch.allclose(rows.sum(dim=1), torch.ones(K + 1, dtype=torch.float64), rtol=0, atol=1e-12)


@every
def test_transitions_compose(kernel: Kernel) -> None:
    """From 0 to s and on to t is from 0 to t, and every step of the chain on its own adds up to the whole."""
    assert torch.equal(matrix(kernel, 4, 4), torch.eye(K + 1, dtype=torch.float64))
    for s, t in TIMES:
        for r in range(s):
            assert torch.allclose(matrix(kernel, r, s) @ matrix(kernel, s, t), matrix(kernel, r, t), rtol=0, atol=1e-12)
    steps = [matrix(kernel, t - 1, t) for t in range(1, T + 1)]
    assert torch.allclose(torch.linalg.multi_dot(steps), matrix(kernel, 0, T), rtol=0, atol=1e-12)


@every
def test_the_chain_comes_from_one_step_of_keeping_replacing_and_masking(kernel: Kernel) -> None:
    """The cumulative masses of the schedule are those of the product of its steps, written out from the start."""
    product = torch.eye(K + 1, dtype=torch.float64)
    for t in range(1, T + 1):
        product = product @ matrix(kernel, t - 1, t)
        keep, mask = float(kernel.keep[t]), float(kernel.mask[t])
        assert product[2, K] == pytest.approx(mask, abs=1e-12)
        assert product[2, 2] == pytest.approx(keep + (1 - keep - mask) / K, abs=1e-12)
        assert product[2, 3] == pytest.approx((1 - keep - mask) / K, abs=1e-12)


@every
def test_the_likelihood_is_a_column_of_the_matrix(kernel: Kernel) -> None:
    for s, t in TIMES:
        found = kernel.likelihood(*at(kernel, s, t), torch.float64)[:, 0]
        assert torch.allclose(found, matrix(kernel, s, t)[:K, states(kernel)].T, rtol=0, atol=1e-12)


@every
def test_the_posterior_of_a_known_token_is_bayes_rule(kernel: Kernel) -> None:
    for s, t in TIMES:
        exact, (x_B1, s_B, t_B) = by_bayes(kernel, s, t), at(kernel, s, t)
        for k in range(K):
            p_B1K = one_hot(torch.full_like(x_B1, k), K, torch.float64)
            for step in (kernel.posterior, kernel.joint):
                assert torch.allclose(step(p_B1K, x_B1, s_B, t_B)[:, 0], exact[:, k], rtol=0, atol=CLOSE)


@every
def test_the_posterior_of_an_uncertain_token_is_the_mean_over_tokens(kernel: Kernel) -> None:
    for s, t in TIMES:
        x_B1, s_B, t_B = at(kernel, s, t)
        p_BK = distribution(len(x_B1), K, seed=13 * s + t)
        mean = torch.einsum("xk,xkj->xj", p_BK, by_bayes(kernel, s, t))
        assert torch.allclose(kernel.posterior(p_BK[:, None], x_B1, s_B, t_B)[:, 0], mean, rtol=0, atol=CLOSE)


@every
def test_the_joint_step_is_the_transition_times_the_diffused_prediction_normalised(kernel: Kernel) -> None:
    for s, t in TIMES:
        x_B1, s_B, t_B = at(kernel, s, t)
        p_BK = distribution(len(x_B1), K, seed=13 * s + t)
        product = matrix(kernel, s, t)[:, x_B1[:, 0]].T * (p_BK @ matrix(kernel, 0, s)[:K])
        exact = product / product.sum(dim=1, keepdim=True)
        assert torch.allclose(kernel.joint(p_BK[:, None], x_B1, s_B, t_B)[:, 0], exact, rtol=0, atol=CLOSE)


@every
def test_the_posterior_averaged_over_where_the_chain_is_at_t_is_the_chain_at_s(kernel: Kernel) -> None:
    for s, t in TIMES:
        x_B1, s_B, t_B = at(kernel, s, t)
        p_B1K = one_hot(torch.full_like(x_B1, 2), K, torch.float64)
        mean = matrix(kernel, 0, t)[2, x_B1[:, 0]] @ kernel.posterior(p_B1K, x_B1, s_B, t_B)[:, 0]
        assert torch.allclose(mean, matrix(kernel, 0, s)[2], rtol=0, atol=1e-12)


@every
def test_the_posterior_is_linear_so_that_truncation_need_not_renormalise(kernel: Kernel) -> None:
    for s, t in TIMES:
        x_B1, s_B, t_B = at(kernel, s, t)
        p, q = (distribution(len(x_B1), 1, K, seed=seed) for seed in (1, 2))
        both = kernel.posterior(0.3 * p + 2 * q, x_B1, s_B, t_B)
        parts = 0.3 * kernel.posterior(p, x_B1, s_B, t_B) + 2 * kernel.posterior(q, x_B1, s_B, t_B)
        assert torch.allclose(both, parts, rtol=1e-12, atol=1e-14)
        short = truncated(p, 0.5)
        assert (short.sum(dim=2) < 1).any()
        plain = kernel.posterior(short, x_B1, s_B, t_B)
        renormalised = kernel.posterior(short / short.sum(dim=2, keepdim=True), x_B1, s_B, t_B)
        assert torch.allclose(plain / plain.sum(dim=2, keepdim=True), renormalised, rtol=0, atol=CLOSE)


@every
def test_each_image_steps_by_its_own_times(kernel: Kernel) -> None:
    x_BN, p_BNK = integers(K, 4, 3), distribution(4, 3, K)
    s, t = torch.tensor([0, 3, 7, 10]), torch.tensor([2, 4, 12, 11])
    for step in (kernel.posterior, kernel.joint):
        together = step(p_BNK, x_BN, s, t)
        for row in range(4):
            rows = slice(row, row + 1)
            assert torch.equal(step(p_BNK[rows], x_BN[rows], s[rows], t[rows]), together[rows])


@every
def test_float32_is_enough(kernel: Kernel) -> None:
    """What training and sampling count in: the released schedule's replacements are a millionth of a millionth."""
    for s, t in TIMES:
        x_B1, s_B, t_B = at(kernel, s, t)
        p_B1K = distribution(len(x_B1), 1, K, seed=13 * s + t)
        for step in (kernel.posterior, kernel.joint):
            single = step(p_B1K.float(), x_B1, s_B, t_B)
            assert single.dtype == torch.float32
            assert torch.allclose(single.double(), step(p_B1K, x_B1, s_B, t_B), rtol=1e-4, atol=1e-6)


def grid(m: int) -> tuple[Tensor, Tensor]:
    """All pairs of m numbers that lie evenly in (0, 1), as two rows (1, m^2): the unit square without its chance."""
    u = (torch.arange(m, dtype=torch.float64) + 0.5) / m
    return u.repeat_interleave(m)[None], u.repeat(m)[None]


def shares(x: Tensor) -> Tensor:
    return torch.bincount(x.flatten(), minlength=K + 1).double() / x.numel()


@every
@pytest.mark.parametrize("t", [0, 1, 5, T])
def test_the_forward_process_moves_tokens_as_often_as_the_matrix_says(kernel: Kernel, t: int) -> None:
    """On a grid of m numbers an interval's share is right to 1 / m, and codes to 1 / m more."""
    m = 500
    which, code = grid(m)
    for token in range(K):
        x = kernel.diffuse(torch.full(which.shape, token), torch.tensor([t]), which, code)
        assert (shares(x) - matrix(kernel, 0, t)[token]).abs().max() < 2 / m


def test_a_chain_starts_from_its_prior() -> None:
    """[mask] with probability 0 for D3PM, 0.9 in VQ-Diffusion's paper, 1 - 1e-6 in its code; else any code alike."""
    m = 500
    for kernel, mask in zip(KERNELS.values(), (0.0, 0.9, 1.0), strict=True):
        found = shares(kernel.prior(*grid(m)))
        assert found[K] == pytest.approx(mask, abs=1 / m)
        assert (found[:K] - (1 - mask) / K).abs().max() < 2 / m


@every
@pytest.mark.parametrize("last", [2, 6, T])
def test_the_prior_term_is_the_divergence_of_the_last_state_from_the_prior(kernel: Kernel, last: int) -> None:
    """Also of a chain that stops early and has much to pay there."""
    stopped = Kernel(kernel.keep[: last + 1], kernel.mask[: last + 1], K)
    masked = float(stopped.mask[-1] / (1 - stopped.keep[-1]))
    prior = torch.tensor([(1 - masked) / K] * K + [masked], dtype=torch.float64)
    q = matrix(stopped, 0, last)[3]
    exact = sum(float(a) * math.log(float(a / b)) for a, b in zip(q, prior, strict=True) if a > 0)
    found = stopped.prior_kl(integers(K, 4, 3))
    assert found.tolist() == pytest.approx([exact] * 4, rel=1e-6, abs=1e-9)
    assert exact > 0.05 if last == 2 else exact > -1e-12


def test_divergence_is_the_sum_by_hand_averaged_over_tokens() -> None:
    q, p = distribution(3, 2, K + 1, seed=1), distribution(3, 2, K + 1, seed=2)
    for image, found in enumerate(kl(q, p).tolist()):
        by_hand = [
            float(a) * math.log(float(a / b))
            for token in range(2)
            for a, b in zip(q[image, token], p[image, token], strict=True)
        ]
        assert found == pytest.approx(sum(by_hand) / 2, rel=1e-10)


def test_divergence_is_zero_where_the_two_are_equal_and_nowhere_else() -> None:
    q = distribution(200, 1, K + 1, seed=1)
    assert kl(q, q).abs().max() < 1e-14
    assert (kl(q, q.roll(1, dims=0)) > 1e-6).all()
    nearly = q.clone()
    nearly[..., 0], nearly[..., 1] = q[..., 0] + 1e-3 * q[..., 1], q[..., 1] * (1 - 1e-3)
    assert (kl(q, nearly) > 0).all()


def test_divergence_takes_no_notice_of_states_that_neither_has_and_stays_finite_where_one_has_not() -> None:
    q, p = torch.tensor([[[0.5, 0.5, 0.0]]]), torch.tensor([[[0.25, 0.75, 0.0]]])
    assert float(kl(q, p)) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert 40 < float(kl(q, torch.tensor([[[0.0, 1.0, 0.0]]]))) < 50


U = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000


@pytest.mark.parametrize("scale", [1.0, 0.2, 1e-6])
def test_states_are_drawn_as_often_as_they_should_be(scale: float) -> None:
    """By evenly spread numbers, and from any multiple of the distribution."""
    p = distribution(K + 1)
    drawn = sample_categorical(scale * p.expand(len(U), 1, K + 1), U[:, None])
    assert (shares(drawn) - p).abs().max() < 1.001 / len(U)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("possible", [[2], [0, 3], [1, 2, 5], [3, 4]])
def test_what_has_no_probability_is_never_drawn(dtype: torch.dtype, possible: list[int]) -> None:
    """Not by the smallest and the largest number that there is either, nor by those on an edge."""
    smallest, largest = 0.5 * 2**-23, 1 - 2**-24
    u_BN = torch.cat([U, torch.tensor([smallest, largest, 0.25, 0.5, 0.75])]).float()[:, None]
    for seed in range(20):
        p = torch.zeros(K + 1, dtype=dtype)
        p[possible] = distribution(len(possible), seed=seed).to(dtype)
        for weights in (p, 0.3 * p, torch.where(p > 0, 0.25, p)):
            drawn = sample_categorical(weights.expand(len(u_BN), 1, K + 1), u_BN)
            assert set(drawn.unique().tolist()) <= set(possible)
