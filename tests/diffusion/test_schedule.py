"""The schedule is one function and its inverse; the weights in time integrate to what they stand for."""

import math

import pytest
import torch

from vqlcmd.diffusion.schedule import SCHEDULES, Cosine, Linear, Schedule
from vqlcmd.diffusion.weighting import WEIGHTINGS, Simple, Vlb

SHIFTS = [-4.0, -2.0, 0.0, 2.0, 4.0]


def has(kind: type[Schedule], shift: float) -> bool:
    """A schedule without a shift refuses one."""
    try:
        kind(shift, -12, 6)
    except ValueError:
        return False
    return True


KINDS = [(kind, shift) for kind in SCHEDULES.values() for shift in SHIFTS if has(kind, shift)]
every = pytest.mark.parametrize(("kind", "shift"), KINDS)
U = torch.linspace(0, 1, 1001, dtype=torch.float64)


@every
def test_alpha_squared_plus_sigma_squared_is_one(kind: type[Schedule], shift: float) -> None:
    schedule = kind(shift, -12, 6)
    t = schedule.between(U)
    assert (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2 - 1).abs().max() < 1e-15


@every
def test_log_snr_is_the_log_of_alpha_squared_over_sigma_squared(kind: type[Schedule], shift: float) -> None:
    schedule = kind(shift, -12, 6)
    t = schedule.between(U)
    ratio = 2 * (schedule.alpha(t).log() - schedule.sigma(t).log())
    assert (ratio - schedule.log_snr(t)).abs().max() < 1e-12


def test_without_shift_it_is_the_cosine_schedule() -> None:
    schedule = Cosine(0.0, -12, 6)
    t = U[1:-1]
    assert (schedule.alpha(t) - torch.cos(math.pi * t / 2)).abs().max() < 1e-15
    assert (schedule.sigma(t) - torch.sin(math.pi * t / 2)).abs().max() < 1e-15


@every
def test_time_is_the_inverse_of_log_snr(kind: type[Schedule], shift: float) -> None:
    schedule = kind(shift, -12, 6)
    log_snr = torch.linspace(-12, 6, 500, dtype=torch.float64)
    assert (schedule.log_snr(schedule.time(log_snr)) - log_snr).abs().max() < 1e-11
    t = torch.linspace(0.01, 0.99, 500, dtype=torch.float64)
    assert (schedule.time(schedule.log_snr(t)) - t).abs().max() < 1e-14


@every
@pytest.mark.parametrize("ends", [(-12.0, 6.0), (-20.0, 20.0)])
def test_the_ends_are_the_given_log_snrs_whatever_the_shift(
    kind: type[Schedule], shift: float, ends: tuple[float, float]
) -> None:
    schedule = kind(shift, *ends)
    t = torch.tensor([schedule.end, schedule.start], dtype=torch.float64)
    assert 0 <= schedule.start < schedule.end <= 1
    assert (schedule.log_snr(t) - torch.tensor(ends, dtype=torch.float64)).abs().max() < 1e-9
    for values in (schedule.log_snr(t), schedule.alpha(t), schedule.sigma(t)):
        assert values.dtype == torch.float64
        assert values.float().isfinite().all()
    assert (schedule.alpha(t).float() > 0).all()
    assert (schedule.sigma(t).float() > 0).all()


def test_ends_that_float32_does_not_hold_are_met_too() -> None:
    schedule = Cosine(0.0, -11.7, 5.3)
    t = torch.tensor([schedule.end, schedule.start], dtype=torch.float64)
    assert (schedule.log_snr(t) - torch.tensor([-11.7, 5.3], dtype=torch.float64)).abs().max() < 1e-11


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_shift_moves_log_snr_by_exactly_itself(shift: float) -> None:
    t = U[1:-1]
    moved, still = Cosine(shift, -12, 6).log_snr(t), Cosine(0.0, -12, 6).log_snr(t)
    assert (moved - still - shift).abs().max() < 1e-13


def test_a_negative_shift_is_more_noise_at_every_time() -> None:
    t = U[1:-1]
    assert (Cosine(-2.0, -12, 6).sigma(t) > Cosine(0.0, -12, 6).sigma(t)).all()


@every
def test_between_runs_in_a_line_from_start_to_end(kind: type[Schedule], shift: float) -> None:
    schedule = kind(shift, -12, 6)
    t = schedule.between(U)
    assert float(t[0]) == schedule.start
    assert float(t[-1]) == pytest.approx(schedule.end, abs=1e-15)
    assert (t.diff() - (schedule.end - schedule.start) / 1000).abs().max() < 1e-15
    assert (schedule.log_snr(t).diff() < 0).all()


@every
def test_the_vlb_weight_integrates_to_half_the_fall_of_the_snr(kind: type[Schedule], shift: float) -> None:
    """E_u[weight] = -1/2 integral of SNR'(t) dt = (SNR(start) - SNR(end)) / 2, by the midpoint rule."""
    schedule = kind(shift, -12, 6)
    weighting = Vlb(schedule)
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    exact = (math.exp(6) - math.exp(-12)) / 2
    # The rule's relative error for exp(c u) is c^2 / 24 n^2, with c = 18 below 1e-7.
    assert float(weighting.weight(weighting.time(u)).mean()) == pytest.approx(exact, rel=1e-7)


@every
def test_the_vlb_weight_is_minus_half_the_slope_of_the_snr_over_the_density_of_its_times(
    kind: type[Schedule], shift: float
) -> None:
    """Pointwise, so that a weight of the right mass in the wrong place fails: slopes by automatic differentiation."""
    weighting = Vlb(kind(shift, -12, 6))
    u = torch.linspace(0.01, 0.99, 99, dtype=torch.float64, requires_grad=True)
    t = weighting.time(u)
    (t_per_u,) = torch.autograd.grad(t.sum(), u, retain_graph=True)
    t_free = t.detach().requires_grad_()
    (snr_per_t,) = torch.autograd.grad(weighting.schedule.log_snr(t_free).exp().sum(), t_free)
    assert torch.allclose(weighting.weight(t).detach(), -0.5 * snr_per_t * t_per_u, rtol=1e-10)


def test_the_vlb_times_spread_log_snr_evenly() -> None:
    weighting = Vlb(Cosine(-2.0, -12, 6))
    log_snr = weighting.schedule.log_snr(weighting.time(U))
    assert (log_snr - (6 - 18 * U)).abs().max() < 1e-10


def test_the_simple_weighting_is_even_in_time_and_counts_all_alike() -> None:
    weighting = Simple(Cosine(-2.0, -12, 6))
    assert torch.equal(weighting.time(U), weighting.schedule.between(U))
    assert torch.equal(weighting.weight(U), torch.ones_like(U))


def test_every_schedule_is_shown_to_have_these_properties() -> None:
    assert {kind for kind, _ in KINDS} == set(SCHEDULES.values())


def test_the_linear_schedule_spends_as_much_time_on_every_unit_of_log_snr_and_has_no_shift() -> None:
    schedule = Linear(0.0, -12, 6)
    assert (schedule.log_snr(U).diff() + 18 / 1000).abs().max() < 1e-12
    with pytest.raises(ValueError, match=r"`schedule.name: linear` has no shift, and s is -1: set s to 0"):
        Linear(-1.0, -12, 6)


def test_every_weighting_keeps_its_times_between_the_ends() -> None:
    schedule = Cosine(2.0, -12, 6)
    for kind in WEIGHTINGS.values():
        t = kind(schedule).time(U)
        assert (t >= schedule.start - 1e-12).all()
        assert (t <= schedule.end + 1e-12).all()
