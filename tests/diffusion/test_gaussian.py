"""The forward process, its posterior and the two steps, in closed form and float64."""

import pytest
import torch
from torch import Tensor

from tests.factory import normal
from vqlcmd.diffusion import gaussian
from vqlcmd.diffusion.schedule import Cosine, Linear, Schedule

SCHEDULES = [*(Cosine(shift, -12, 6) for shift in (-4.0, 0.0, 4.0)), Linear(0.0, -12, 6)]
B, N, D = 5, 3, 4
PSI, EPS = normal(B, N, D, seed=1, dtype=torch.float64), normal(B, N, D, seed=2, dtype=torch.float64)


def times(schedule: Schedule, *shares: float) -> list[Tensor]:
    """Times (B,) at these shares of the way, a little apart from image to image."""
    offsets = torch.linspace(-0.01, 0.01, B, dtype=torch.float64)
    return [schedule.between(share + offsets) for share in shares]


def wide(values: Tensor) -> Tensor:
    return values[:, None, None]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_diffusing_scales_the_signal_by_alpha_and_the_noise_by_sigma(schedule: Schedule) -> None:
    (t,) = times(schedule, 0.4)
    z_t = gaussian.diffuse(schedule, PSI, t, EPS)
    for image in range(B):
        alpha, sigma = schedule.alpha(t[image]), schedule.sigma(t[image])
        assert torch.allclose(z_t[image], alpha * PSI[image] + sigma * EPS[image], rtol=1e-14)


def test_unit_variance_is_kept() -> None:
    """Var z_t = alpha^2 + sigma^2 = 1 for embeddings of unit variance; n = 200,000 numbers, four standard errors."""
    schedule = SCHEDULES[0]
    psi, eps = normal(2, 1000, 100, seed=3), normal(2, 1000, 100, seed=4)
    z_t = gaussian.diffuse(schedule, psi, schedule.between(torch.tensor([0.3, 0.6])), eps)
    assert float(z_t.var()) == pytest.approx(1, abs=4 * (2 / z_t.numel()) ** 0.5)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("early", "late"), [(0.1, 0.9), (0.5, 0.6), (0.02, 0.04)])
def test_the_posterior_averaged_over_z_t_is_the_forward_marginal(schedule: Schedule, early: float, late: float) -> None:
    """E q(z_s | z_t, psi) over z_t ~ q(z_t | psi): mean alpha_s psi, variance sigma_s^2."""
    s, t = times(schedule, early, late)
    mean_at_mean, std = gaussian.posterior(schedule, wide(schedule.alpha(t)) * PSI, PSI, s, t)
    # The mean is affine in z_t: its slope is what a unit more of z_t adds.
    slope = gaussian.posterior(schedule, wide(schedule.alpha(t)) * PSI + 1, PSI, s, t)[0] - mean_at_mean
    assert torch.allclose(mean_at_mean, wide(schedule.alpha(s)) * PSI, rtol=1e-12)
    variance = slope**2 * wide(schedule.sigma(t)) ** 2 + std**2
    assert torch.allclose(variance, (wide(schedule.sigma(s)) ** 2).expand_as(variance), rtol=1e-11)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_posterior_is_the_textbooks(schedule: Schedule) -> None:
    """Section 2 of docs/method.md, letter by letter, at times where nothing cancels."""
    s, t = times(schedule, 0.2, 0.8)
    alpha_t, alpha_s, sigma_t, sigma_s = (wide(f(x)) for f in (schedule.alpha, schedule.sigma) for x in (t, s))
    alpha_ts = alpha_t / alpha_s
    variance_ts = sigma_t**2 - alpha_ts**2 * sigma_s**2
    z_t = gaussian.diffuse(schedule, PSI, t, EPS)
    mean, std = gaussian.posterior(schedule, z_t, PSI, s, t)
    assert std.shape == (B, 1, 1)
    assert torch.allclose(std**2, variance_ts * sigma_s**2 / sigma_t**2, rtol=1e-9)
    textbook = alpha_ts * sigma_s**2 / sigma_t**2 * z_t + alpha_s * variance_ts / sigma_t**2 * PSI
    assert torch.allclose(mean, textbook, rtol=1e-9)


def test_the_ancestral_step_is_the_posteriors_mean_and_its_spread_times_the_noise() -> None:
    schedule = SCHEDULES[1]
    s, t = times(schedule, 0.3, 0.7)
    mean, std = gaussian.posterior(schedule, EPS, PSI, s, t)
    step = gaussian.ancestral_step(schedule, EPS, PSI, s, t, 2 * EPS)
    assert torch.allclose(step, mean + 2 * std * EPS, rtol=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_chain_of_ancestral_steps_with_the_true_embedding_ends_in_the_forward_marginal(schedule: Schedule) -> None:
    """Means and variances carried through 50 steps by hand."""
    path = schedule.between(torch.linspace(1, 0, 51, dtype=torch.float64))
    mean, variance = schedule.alpha(path[:1]) * 2.0, schedule.sigma(path[:1]) ** 2
    psi = torch.full((1, 1, 1), 2.0, dtype=torch.float64)
    for t, s in zip(path[:-1, None], path[1:, None], strict=True):
        following, std = gaussian.posterior(schedule, mean[:, None, None], psi, s, t)
        slope = gaussian.posterior(schedule, mean[:, None, None] + 1, psi, s, t)[0] - following
        mean, variance = following.flatten(), (slope**2 * variance + std**2).flatten()
    assert torch.allclose(mean, schedule.alpha(path[-1:]) * 2, rtol=1e-11)
    assert torch.allclose(variance, schedule.sigma(path[-1:]) ** 2, rtol=1e-11)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_two_ddim_steps_with_the_true_embedding_equal_one(schedule: Schedule) -> None:
    s, middle, t = times(schedule, 0.1, 0.45, 0.9)
    z_t = gaussian.diffuse(schedule, PSI, t, EPS)
    half = gaussian.ddim_step(schedule, z_t, PSI, middle, t)
    twice = gaussian.ddim_step(schedule, half, PSI, s, middle)
    assert torch.allclose(twice, gaussian.ddim_step(schedule, z_t, PSI, s, t), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_ddim_step_with_the_true_embedding_keeps_the_noise(schedule: Schedule) -> None:
    s, t = times(schedule, 0.2, 0.8)
    z_s = gaussian.ddim_step(schedule, gaussian.diffuse(schedule, PSI, t, EPS), PSI, s, t)
    assert torch.allclose(z_s, gaussian.diffuse(schedule, PSI, s, EPS), rtol=1e-12, atol=1e-14)


def test_steps_of_no_length_stay_where_they_are() -> None:
    schedule = SCHEDULES[0]
    (t,) = times(schedule, 0.5)
    assert torch.allclose(gaussian.ddim_step(schedule, EPS, PSI, t, t), EPS, rtol=1e-14)
    assert torch.allclose(gaussian.ancestral_step(schedule, EPS, PSI, t, t, PSI), EPS, rtol=1e-14)


@pytest.mark.parametrize("schedule", [*SCHEDULES, Cosine(0.0, -2, 6)])
def test_the_prior_term_is_the_kl_to_a_standard_normal(schedule: Schedule) -> None:
    t = torch.tensor(schedule.end, dtype=torch.float64)
    q = torch.distributions.Normal(schedule.alpha(t) * PSI, schedule.sigma(t))
    p = torch.distributions.Normal(torch.zeros_like(PSI), torch.ones_like(PSI))
    exact = torch.distributions.kl_divergence(q, p).sum(dim=2).mean(dim=1)
    # PyTorch's formula cancels terms of size 1 when the KL is tiny: an absolute error of some 1e-15.
    assert torch.allclose(gaussian.prior_kl(schedule, PSI), exact, rtol=1e-9, atol=1e-13)


def test_embeddings_keep_their_precision_and_times_theirs() -> None:
    """float32 in, float32 out, though the schedule counts in float64."""
    schedule = SCHEDULES[1]
    s, t = times(schedule, 0.3, 0.7)
    psi, eps = PSI.float(), EPS.float()
    z_t = gaussian.diffuse(schedule, psi, t, eps)
    steps = gaussian.ancestral_step(schedule, z_t, psi, s, t, eps), gaussian.ddim_step(schedule, z_t, psi, s, t)
    assert [x.dtype for x in (z_t, *steps, gaussian.prior_kl(schedule, psi))] == [torch.float32] * 4
