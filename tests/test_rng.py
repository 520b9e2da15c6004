"""Philox against its published answers, and what makes a number's address its own."""

import math

import pytest
import torch

from vqlcmd.rng import CounterRNG, philox

# Counter, key and result of philox4x32-10, from the file kat_vectors of Random123 (Salmon et al. 2011).
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def rng(rows: int = 5, *, seed: int = 0, purpose: str = "test", step: int = 0) -> CounterRNG:
    return CounterRNG(seed, purpose, torch.arange(rows), step)


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
def test_philox_gives_the_published_answers(counter: str, key: str, result: str) -> None:
    c0, c1, c2, c3 = (torch.tensor([word]) for word in words(counter))
    k0, k1 = words(key)
    assert [int(word) for word in philox((c0, c1, c2, c3), (k0, k1))] == words(result)


def test_philox_gives_the_published_answers_side_by_side() -> None:
    """The same key for all, so only the first two counters' neighbours change."""
    c0, c1, c2, c3 = torch.tensor([words(KNOWN[0][0]), words(KNOWN[1][0])]).T
    first = torch.stack(philox((c0, c1, c2, c3), (0, 0)), dim=1)[0]
    assert first.tolist() == words(KNOWN[0][2])


def philox_in_integers(counter: list[int], key: list[int]) -> list[int]:
    """The same in Python's integers, from the paper's Figure 4."""
    (a, b, c, d), (k, m) = counter, key
    for _ in range(10):
        left, right = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = right >> 32 ^ b ^ k, right % 2**32, left >> 32 ^ d ^ m, left % 2**32
        k, m = (k + 0x9E3779B9) % 2**32, (m + 0xBB67AE85) % 2**32
    return [a, b, c, d]


def test_counters_that_broadcast_are_mixed_like_full_ones() -> None:
    blocks, rows, step, names = [0, 1, 7, 2**32 - 1], [3, 2**31, 2**32 - 1], 12, [5, 5, 2**32 - 1, 2**31]
    mixed = philox(
        (torch.tensor(blocks), torch.tensor(rows)[:, None], torch.full((1, 1), step), torch.tensor(names)),
        (99, 2**32 - 2),
    )
    for i, row in enumerate(rows):
        for j, (block, name) in enumerate(zip(blocks, names, strict=True)):
            assert [int(word[i, j]) for word in mixed] == philox_in_integers([block, row, step, name], [99, 2**32 - 2])


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 3)])
def test_a_rows_numbers_do_not_depend_on_the_rows_beside_it(shape: tuple[int, ...]) -> None:
    for draw in (lambda rng: rng.normal("a", *shape), lambda rng: rng.uniform("a", *shape)):
        whole = draw(rng(7))
        assert whole.shape == (7, *shape)
        assert torch.equal(draw(CounterRNG(0, "test", torch.tensor([5, 2]))), whole[[5, 2]])


def test_rows_far_from_zero_have_numbers_of_their_own() -> None:
    rows = torch.tensor([0, 2**31, 2**32 - 1])
    assert len(CounterRNG(0, "test", rows).uniform("a").unique()) == 3


def test_another_draw_step_seed_purpose_or_row_is_another_number() -> None:
    streams = [
        rng().normal("a", 6),
        rng().normal("b", 6),
        rng(step=1).normal("a", 6),
        rng(seed=1).normal("a", 6),
        rng(purpose="other").normal("a", 6),
        rng(seed=2**32 - 1).normal("a", 6),
    ]
    values = torch.cat([stream.flatten() for stream in streams])
    assert len(values.unique()) == len(values)
    assert torch.equal(rng().normal("a", 6), streams[0])


def test_at_moves_the_step_and_of_counts_the_rows_anew() -> None:
    assert torch.equal(rng().with_step(3).uniform("a"), rng(step=3).uniform("a"))
    assert torch.equal(CounterRNG(0, "test", torch.tensor([9]), 3).first_rows(5).uniform("a"), rng(step=3).uniform("a"))


def test_prefetched_numbers_are_the_same_bit_for_bit() -> None:
    single, ahead = rng(step=4), rng(step=4).prefetch(a=15, b=1, c=12, d=3)
    assert torch.equal(ahead.normal("a", 5, 3), single.normal("a", 5, 3))
    assert torch.equal(ahead.uniform("b"), single.uniform("b"))
    assert torch.equal(ahead.normal("c", 12), single.normal("c", 12))
    assert torch.equal(ahead.uniform("d", 3), single.uniform("d", 3))
    assert torch.equal(ahead.uniform("not ahead", 3), single.uniform("not ahead", 3))


def test_what_was_prefetched_stays_with_its_rows_and_step() -> None:
    ahead = rng().prefetch(a=6)
    assert torch.equal(ahead.with_step(3).uniform("a", 6), rng(step=3).uniform("a", 6))
    assert torch.equal(ahead.first_rows(2).uniform("a", 6), rng(2).uniform("a", 6))


def test_another_count_than_was_prefetched_is_refused() -> None:
    """The words' order depends on how many blocks there are, so that others would come."""
    with pytest.raises(AssertionError, match="a: 16 numbers asked for, 100 prefetched"):
        rng().prefetch(a=100).uniform("a", 16)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 9])
def test_an_odd_count_of_numbers_is_as_many_different_numbers(count: int) -> None:
    values = rng(1).normal("a", count)
    assert values.shape == (1, count)
    assert len(values.unique()) == count


def test_uniform_numbers_lie_inside_the_open_interval_at_its_very_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest word must not round to 1 in float32, nor the smallest give 0."""
    ends = torch.tensor([[0, 0xFFFFFFFF]])
    monkeypatch.setattr(CounterRNG, "_words", lambda self, draw, count: ends)
    low, high = rng(1).uniform("a", 2)[0].tolist()
    assert 0 < low < high < 1


def test_normal_numbers_are_finite_at_the_ends_of_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = torch.tensor([[0, 0xFFFFFFFF, 0, 0xFFFFFFFF]])
    monkeypatch.setattr(CounterRNG, "_words", lambda self, draw, count: ends)
    assert rng(1).normal("a", 4).isfinite().all()


def kolmogorov(values: torch.Tensor) -> float:
    """sqrt(n) sup |F_n - F| for values that should be uniform; above 1.95 once in a thousand."""
    ordered = values.flatten().double().sort().values
    n = len(ordered)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return math.sqrt(n) * float(torch.maximum((steps[1:] - ordered).max(), (ordered - steps[:-1]).max()))


def test_uniform_numbers_are_uniform() -> None:
    values = rng(400).uniform("a", 250)
    assert kolmogorov(values) < 1.95
    assert kolmogorov(values[:, 0]) < 1.95
    # The mean of n has standard deviation 1 / sqrt(12 n).
    assert abs(float(values.mean()) - 0.5) < 4 / math.sqrt(12 * values.numel())


def test_normal_numbers_are_normal() -> None:
    """Moments within four standard deviations of their estimates, and the whole distribution by Kolmogorov's test."""
    values = rng(400).normal("a", 250).double()
    n = values.numel()
    for power, exact, spread in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs(float((values**power).mean()) - exact) < 4 * math.sqrt(spread / n), power
    assert kolmogorov(torch.special.ndtr(values)) < 1.95


def test_numbers_of_neighbouring_rows_places_and_steps_are_uncorrelated() -> None:
    values, later = rng(400).normal("a", 250), rng(400, step=1).normal("a", 250)
    pairs = [(values[1:], values[:-1]), (values[:, 1:], values[:, :-1]), (values, later)]
    # Box-Muller makes a cosine and a sine of the same radius: place j and j + 125.
    pairs.append((values[:, :125], values[:, 125:]))
    for left, right in pairs:
        assert abs(float((left * right).mean())) < 4 / math.sqrt(left.numel())


def test_stratified_puts_one_number_into_each_part() -> None:
    parts = rng(64).stratified("a", 64) * 64
    assert parts.floor().long().tolist() == list(range(64))
    assert kolmogorov(parts.frac()) < 1.95
    assert torch.equal(CounterRNG(0, "test", torch.arange(32, 64)).stratified("a", 64) * 64, parts[32:])
