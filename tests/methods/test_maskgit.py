"""MaskGIT: how many tokens a step reveals, which ones, and what training masks and counts."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.factory import CODES, TOKENS, build, integers, made, normal, sampling
from vqlcmd.diffusion.masked import reveal
from vqlcmd.diffusion.masked.reveal import reveal_counts
from vqlcmd.methods.maskgit import share_masked
from vqlcmd.rng import CounterRNG

B = 6
LABEL = integers(3, B, seed=1)
NOISE = CounterRNG(7, "test", torch.arange(B))


class Fixed(nn.Module):
    """Says the same whatever it sees: logits (N, K)."""

    def __init__(self, logits_NK: Tensor):
        super().__init__()
        self.logits_NK = logits_NK

    def forward(self, z_BND: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.logits_NK.expand(len(z_BND), -1, -1)


def fixed(logits_NK: Tensor, **overrides: Any) -> Any:
    tokens, codes = logits_NK.shape
    method = build(method="maskgit", tokens=tokens, codes=codes, **overrides)
    method.network = Fixed(logits_NK)
    return method


@pytest.mark.parametrize(
    ("steps", "counts"),
    [
        (8, [1, 18, 26, 32, 38, 43, 48, 50]),
        (12, [1, 9, 13, 17, 19, 22, 24, 26, 28, 30, 32, 35]),
        (1, [256]),
        (2, [1, 255]),
    ],
)
def test_of_256_tokens_as_many_are_revealed_as_in_the_published_code(steps: int, counts: list[int]) -> None:
    """valeoai/Maskgit-pytorch, v1.0, for 8 and 12."""
    assert reveal_counts(steps, 256) == counts


@pytest.mark.parametrize("tokens", [1, 2, 5, 16, 256])
def test_all_tokens_are_revealed_in_any_number_of_steps(tokens: int) -> None:
    for steps in range(1, 2 * tokens + 3):
        counts = reveal_counts(steps, tokens)
        assert len(counts) == steps
        assert min(counts) >= 0
        assert sum(counts) == tokens
        # More in late steps than in early ones, but for rounding.
        assert sum(counts[: steps // 2]) <= sum(counts[steps // 2 :])


def test_every_step_of_few_reveals_something() -> None:
    for steps in range(1, 17):
        counts = reveal_counts(steps, 256)
        assert min(counts) >= 1
        assert counts[:-1] == sorted(counts[:-1])


def test_the_share_of_masked_tokens_is_the_arc_cosine() -> None:
    """By its inverse: at m = arccos(r) / (pi / 2), r = cos(m pi / 2). All are masked at r = 0, and none at r = 1."""
    m = torch.linspace(0, 1, 21, dtype=torch.float64)
    assert torch.allclose(share_masked(torch.cos(m * math.pi / 2)), m, atol=1e-9)


def watched(method: Any, rng: CounterRNG = NOISE, known: Tensor | None = None, **options: Any) -> tuple[Tensor, Tensor]:
    """The states (steps made, B, N) that the network was asked about, and what came out."""
    states: list[Tensor] = []
    handle = method.embedding.register_forward_pre_hook(lambda _, args: states.append(args[0].clone()))
    tokens = method.sample(LABEL, rng, sampling(**options), known)
    handle.remove()
    return torch.stack(states), tokens


@pytest.mark.parametrize("steps", [1, 3, 8, 16, 40])
def test_each_step_reveals_its_count_and_takes_nothing_back(steps: int) -> None:
    states, tokens = watched(made("maskgit", tokens=16), steps=steps)
    assert (states[0] == CODES).all()
    made_by_step = [count for count in reveal_counts(steps, 16) if count]
    path = torch.cat([states, tokens[None]])
    assert len(path) == len(made_by_step) + 1
    for before, after, count in zip(path[:-1], path[1:], made_by_step, strict=True):
        assert ((before == CODES).sum(dim=1) - (after == CODES).sum(dim=1)).tolist() == [count] * B
        assert torch.equal(after[before != CODES], before[before != CODES])
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < CODES


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_known_tokens_stand_from_the_first_step_on_and_each_image_reveals_the_rest_in_as_many(steps: int) -> None:
    known = integers(CODES, B, 16)
    left = [16, 0, 1, 5, 9, 16]
    for image, count in enumerate(left):
        known[image, torch.randperm(16, generator=torch.Generator().manual_seed(image))[:count]] = -1
    states, tokens = watched(made("maskgit", tokens=16), known=known, steps=steps)
    assert torch.equal(states[0], torch.where(known >= 0, known, CODES))
    path = torch.cat([states, tokens[None]])
    revealed = ((path[:-1] == CODES).sum(dim=2) - (path[1:] == CODES).sum(dim=2)).T.tolist()
    for count, found in zip(left, revealed, strict=True):
        expected = reveal_counts(steps, count) if count else []
        assert [each for each in found if each] == [each for each in expected if each]
    for before, after in pairwise(path):
        assert torch.equal(after[before != CODES], before[before != CODES])


def test_without_temperature_the_surest_tokens_are_revealed_first() -> None:
    """Four tokens that are all but certain, to different degrees."""
    logits = torch.zeros(4, CODES)
    logits[:, 5] = torch.tensor([14.0, 20.0, 12.0, 17.0])
    states, tokens = watched(fixed(logits), steps=4, temperature=0.0)
    for step, places in enumerate([[], [1], [1, 3], [0, 1, 3]]):
        assert (states[step][:, places] == 5).all()
        assert (states[step] != CODES).sum(dim=1).tolist() == [len(places)] * B
    assert (tokens == 5).all()


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_order_is_drawn_by_confidence_with_less_and_less_chance(temperature: float) -> None:
    """Gumbel noise of scale c on log p reveals token i first with probability ~ p_i^(1 / c); c = temperature (1 - i/2).

    Tokens that are even over 1, 2 and 4 codes: whatever is drawn, log p is 0, -log 2 and -log 4.
    """
    n, p = 20_000, torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    logits = torch.full((3, 4), -1e4)
    for token, codes in enumerate((1, 2, 4)):
        logits[token, :codes] = 0
    states, _ = watched(fixed(logits), CounterRNG(0, "test", torch.arange(n)), steps=3, temperature=temperature)
    first, second = ((before != 4) < (after != 4) for before, after in pairwise(states))
    for one in range(3):
        chance = p ** (1 / temperature)
        exact_one = float(chance[one] / chance.sum())
        for other in {0, 1, 2} - {one}:
            left = p ** (2 / temperature) * (torch.arange(3) != one)
            exact = exact_one * float(left[other] / left.sum())
            found = float((first[:, one] & second[:, other]).float().mean())
            assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / n))


@pytest.mark.parametrize(("steps", "weights"), [(5, [0, 0.5, 1, 1.5, 2]), (2, [0, 2]), (1, [2])])
def test_guidance_grows_from_nothing_to_its_full_weight(
    steps: int, weights: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """w i / (S - 1)."""
    asked: list[float] = []
    guided = reveal.guided
    monkeypatch.setattr(reveal, "guided", lambda f, weight, null: asked.append(weight) or guided(f, weight, null))
    made("maskgit", tokens=16).sample(LABEL, NOISE, sampling(steps, guidance=2.0))
    assert asked == pytest.approx(weights)


def test_training_masks_a_share_of_arc_cosine_of_an_even_number_and_asks_at_no_time() -> None:
    """Images i of 2,000 with r in (i, i + 1) / 2,000: per 100 of them, the share is that of the formula."""
    images, tokens = 2000, 64
    method = fixed(torch.zeros(tokens, CODES), train={"batch_size": images})
    seen: dict[str, Tensor] = {}
    method.embedding.register_forward_pre_hook(lambda _, args: seen.update(x=args[0]))
    method.network.register_forward_pre_hook(lambda _, args: seen.update(t=args[1]))
    x = integers(CODES, images, tokens)
    method(x, None, CounterRNG(7, "test", torch.arange(images)), method)
    masked = seen["x"] == CODES
    assert torch.equal(seen["x"][~masked], x[~masked])
    assert not seen["t"].any()
    r = (torch.arange(images, dtype=torch.float64) + 0.5) / images
    expected = (r.arccos() / (math.pi / 2)).view(20, 100).mean(dim=1)
    found = masked.double().mean(dim=1).view(20, 100).mean(dim=1)
    assert (found - expected).abs().max() < 4 * math.sqrt(0.25 / (100 * tokens))
    # The integral of the formula at each place: tokens on their own, and not the same ones in every image.
    assert (masked.double().mean(dim=0) - 2 / math.pi).abs().max() < 4 * math.sqrt(0.25 / images)
    assert len(masked[990:1010].unique(dim=0)) == 20


def test_the_loss_is_cross_entropy_at_all_places_with_a_tenth_spread_over_all_codes() -> None:
    """0.9 of -log p of the token, and 0.1 of its mean over codes; masked or not makes no difference."""
    logits, x = normal(TOKENS, CODES), integers(CODES, B, TOKENS)
    method = fixed(logits, train={"batch_size": B})
    nats = -logits.log_softmax(dim=1)
    exact = [
        sum(0.9 * nats[place, code] + 0.1 * nats[place].mean() for place, code in enumerate(row)) / TOKENS
        for row in x.tolist()
    ]
    assert method.weights == {"ce": 1.0}
    assert method(x, None, NOISE, method)["ce"].tolist() == pytest.approx([float(each) for each in exact], rel=1e-5)
