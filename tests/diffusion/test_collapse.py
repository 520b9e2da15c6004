"""Measures of collapse at tables whose measures are known."""

import math

import pytest
import torch

from benchmarks.measure import apart, peak_memory
from tests.factory import normal
from vqlcmd.diffusion import collapse
from vqlcmd.diffusion.collapse import (
    BLOCK,
    DECODABLE_AT,
    decodable,
    effective_rank,
    geometry,
    pairwise_distances,
    statistics,
    statistics_memory,
)
from vqlcmd.diffusion.schedule import Cosine
from vqlcmd.rng import CounterRNG

SCHEDULE = Cosine(-2.0, -30, 30)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_the_effective_rank_of_plus_and_minus_an_orthogonal_frame_is_its_dimension(scale: float) -> None:
    frame = torch.linalg.qr(normal(8, 8, dtype=torch.float64)).Q[:5]
    # Neither its place nor its size counts.
    table = scale * torch.cat([frame, -frame]) + 7
    assert effective_rank(table) == pytest.approx(5, rel=1e-6)


def test_the_effective_rank_of_a_simplex_of_k_codes_is_k_minus_one() -> None:
    assert effective_rank(torch.eye(6)) == pytest.approx(5, rel=1e-6)


def test_the_effective_rank_of_codes_on_a_line_is_one() -> None:
    assert effective_rank(normal(9, 1) * normal(1, 5, seed=1) + 2) == pytest.approx(1, abs=1e-5)
    assert effective_rank(torch.tensor([[0.0, 1.0], [3.0, 5.0]])) == pytest.approx(1, abs=1e-5)


def test_the_effective_rank_of_two_directions_of_unequal_size_is_the_exponential_of_their_entropy() -> None:
    """Squared singular values 8 and 2: shares 0.8 and 0.2."""
    table = torch.tensor([[2.0, 0], [-2, 0], [0, 1], [0, -1]])
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert effective_rank(table) == pytest.approx(math.exp(entropy), rel=1e-6)


def test_the_effective_rank_of_a_table_of_zeros_is_zero() -> None:
    assert effective_rank(torch.zeros(7, 5)) == 0


def test_the_effective_rank_of_a_table_of_one_point_is_zero() -> None:
    assert effective_rank(normal(1, 5).expand(7, 5)) == 0


def test_far_codes_are_decodable_almost_without_noise_and_by_chance_where_there_is_only_noise() -> None:
    """K = 1,000: the share of lucky codes has standard deviation sqrt((1/K) / K) around 1/K."""
    codes, size = 1000, 16
    table, eps = normal(codes, size), normal(codes, size, seed=1)
    assert decodable(table, SCHEDULE, 12, eps) == 1
    assert decodable(table, SCHEDULE, -25, eps) == pytest.approx(1 / codes, abs=4 / codes)


def test_two_codes_are_decodable_with_the_probability_of_the_closed_form() -> None:
    """Codes at +-1 on a line: right with probability Phi(alpha / sigma) = Phi(exp(log SNR / 2))."""
    table = torch.tensor([[1.0], [-1.0]])
    n, log_snr = 2000, -1.0
    shares = [decodable(table, SCHEDULE, log_snr, eps) for eps in normal(n, 2, 1)]
    exact = float(torch.special.ndtr(torch.tensor(math.exp(log_snr / 2))))
    assert sum(shares) / n == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / (2 * n)))


def test_collapsed_codes_are_not_decodable_where_apart_ones_are() -> None:
    table, eps = normal(64, 16), normal(64, 16, seed=1)
    assert decodable(table, SCHEDULE, 2, eps) == 1
    assert decodable(0.01 * table, SCHEDULE, 2, eps) < 0.2


def test_statistics_of_a_right_triangle_are_what_a_ruler_says() -> None:
    table = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    found = statistics(table, SCHEDULE, CounterRNG(0, "test", torch.arange(3)))
    assert found["embedding_norm"] == pytest.approx(7 / 3)
    assert found["embedding_norm_std"] == pytest.approx(float(torch.tensor([0.0, 3.0, 4.0]).std()))
    assert found["embedding_distance"] == pytest.approx(4)
    assert found["embedding_distance_min"] == pytest.approx(3)
    assert {f"decodable_{log_snr}" for log_snr in DECODABLE_AT} < set(found)
    assert all(type(value) is float for value in found.values())


def test_geometry_is_the_part_of_the_statistics_that_needs_no_noise() -> None:
    table = normal(9, 5)
    found, whole = geometry(table), statistics(table, SCHEDULE, CounterRNG(0, "test", torch.arange(9)))
    assert set(whole) - set(found) == {f"decodable_{log_snr}" for log_snr in DECODABLE_AT}
    assert found.items() <= whole.items()
    assert found["embedding_rank"] == effective_rank(table)


@pytest.mark.parametrize("codes", [2, 3, 64, 1024, 4096])
def test_distances_of_one_block_are_those_of_the_dense_computation_to_the_bit(codes: int) -> None:
    """What the demo's curves hold: 64 codes."""
    table = normal(codes, 32)
    dense = torch.pdist(table)
    assert pairwise_distances(table) == (float(dense.mean()), float(dense.min()))
    z, means = normal(codes, 32, seed=1), normal(codes, 32, seed=2)
    assert math.isqrt(BLOCK) >= 4096
    rows = torch.cat([torch.cdist(part, means) for part in z.split(BLOCK // codes)])
    assert torch.equal(rows, torch.cdist(z, means))


def test_distances_in_blocks_are_those_of_the_dense_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    table, eps = normal(130, 16), normal(130, 16, seed=1)
    # The closest two lie in different blocks, closer than a matrix product can tell.
    table[7], table[101] = 5.0, 5.0 + 1e-5
    dense, share = torch.pdist(table), decodable(table, SCHEDULE, 0, eps)
    monkeypatch.setattr(collapse, "BLOCK", 31**2)
    mean, least = pairwise_distances(table)
    assert mean == pytest.approx(float(dense.mean()), rel=1e-5)
    assert least == pytest.approx(float(dense.min()), rel=1e-3)
    assert decodable(table, SCHEDULE, 0, eps) == share


def largest_table() -> dict[str, float]:
    """Statistics of 65,536 codes, and the memory that they took beside the table and its noise."""
    table, eps = normal(65_536, 8), normal(65_536, 8, seed=1)
    pairwise_distances(table[:128])
    before = peak_memory()
    mean, _ = pairwise_distances(table)
    share = decodable(table, SCHEDULE, 2, eps)
    return {"bytes": peak_memory() - before, "mean": mean, "share": share}


@pytest.mark.slow
def test_statistics_of_65536_codes_take_bounded_memory() -> None:
    """All distances at once would be 17 GB. Two standard normal points in D dimensions are 2 G((D+1)/2) / G(D/2) apart.

    The mean was compared with that of 8 codes' distances, which varies by more than the test allowed.
    """
    found = apart(largest_table)
    assert found["bytes"] < statistics_memory(65_536) < 300e6
    assert found["mean"] == pytest.approx(2 * math.gamma(4.5) / math.gamma(4), rel=0.005)
    assert 0 < found["share"] < 1
