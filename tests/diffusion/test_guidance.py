"""Equation 4 around any prediction, tokens held fixed, and both in every method."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factory import CODES, METHODS, TOKENS, integers, made, normal, sampling
from vqlcmd.diffusion.guidance import guided, watching, with_known_tokens
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError

NULL = 3
TABLE = normal(NULL + 1, 5, 6, dtype=torch.float64)
LABEL, T, Z = torch.tensor([0, 2, 1, 2]), torch.tensor([0.1, 0.2, 0.3, 0.4]), normal(4, 5, 2)


def predict(z_BND: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
    """Logits that tell image, time and class apart."""
    assert label is not None
    return TABLE[label] * (1 + t[:, None, None]) + z_BND.sum(dim=2, keepdim=True) * TABLE[0]


def test_without_guidance_it_is_the_very_same_function() -> None:
    assert guided(predict, 0, null=NULL) is predict


@pytest.mark.parametrize("w", [0.5, 1.0, 3.0])
def test_guided_probabilities_are_the_normalised_product_of_powers(w: float) -> None:
    """P = p_c^(1 + w) / p_null^w, normalised, for each image with its own class."""
    p_c = predict(Z, T, LABEL).softmax(dim=2)
    p_null = predict(Z, T, torch.full_like(LABEL, NULL)).softmax(dim=2)
    product = p_c ** (1 + w) / p_null**w
    found = guided(predict, w, null=NULL)(Z, T, LABEL).softmax(dim=2)
    assert torch.allclose(found, product / product.sum(dim=2, keepdim=True), rtol=1e-10)


def test_the_null_class_cannot_be_guided_away_from_itself() -> None:
    label = torch.full_like(LABEL, NULL)
    assert torch.allclose(guided(predict, 2.0, null=NULL)(Z, T, label), predict(Z, T, label), rtol=1e-10)


def test_images_stay_in_their_order() -> None:
    together = guided(predict, 1.0, null=NULL)(Z, T, LABEL)
    for image in range(len(Z)):
        rows = slice(image, image + 1)
        assert torch.allclose(guided(predict, 1.0, null=NULL)(Z[rows], T[rows], LABEL[rows]), together[rows])


def test_guidance_without_classes_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="guidance needs classes"):
        guided(predict, 1.0, null=NULL)(Z, T, None)


KNOWN = torch.tensor([[2, -1, -1, 0, -1], [-1] * 5, [1, 2, 3, 4, 5], [-1, -1, 0, -1, 5]])


def test_without_known_tokens_it_is_the_very_same_function_too() -> None:
    assert with_known_tokens(predict, None) is predict


def test_known_tokens_are_certain_and_the_others_as_they_were() -> None:
    found, plain = with_known_tokens(predict, KNOWN)(Z, T, LABEL), predict(Z, T, LABEL)
    p = found.softmax(dim=2)
    for image, place in (KNOWN >= 0).nonzero().tolist():
        assert p[image, place].tolist() == [float(code == KNOWN[image, place]) for code in range(6)]
    assert torch.equal(found[KNOWN < 0], plain[KNOWN < 0])


# What follows holds for every method.
B = 24
ROWS, CLASSES = torch.arange(B), integers(3, B, seed=1)
every = pytest.mark.parametrize("name", METHODS)
filling = pytest.mark.parametrize("name", [name for name in METHODS if name != "autoregressive"])


def sample(method: Any, known: Tensor | None = None, *, seed: int = 7, rows: Tensor = ROWS, **options: Any) -> Tensor:
    how = sampling(**{"steps": 5, **options})
    return method.sample(CLASSES[rows], CounterRNG(seed, "test", rows), how, None if known is None else known[rows])


@every
def test_only_guidance_asks_for_the_null_class(name: str) -> None:
    """At w = 0 a method samples its conditional model, whatever it says about the null class."""
    method = made(name)
    plain, guided_ones = sample(method), sample(method, guidance=2.0)
    assert not torch.equal(plain, guided_ones)
    for block in method.network.blocks:
        block.class_norm.classes.weight.data[3] += normal(16, seed=5)
    assert torch.equal(sample(method, guidance=0.0), plain)
    assert not torch.equal(sample(method, guidance=2.0), guided_ones)


@every
def test_guidance_away_from_the_class_itself_changes_no_sample(name: str) -> None:
    method = made(name)
    for block in method.network.blocks:
        block.class_norm.classes.weight.data[:] = block.class_norm.classes.weight.data[3]
    assert (sample(method, guidance=1.0) == sample(method)).float().mean() > 0.97


@every
@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_an_onlooker_sees_every_prediction_and_changes_no_sample(name: str, guidance: float) -> None:
    method, seen = made(name), []
    plain = sample(method, guidance=guidance)
    for sampler in method.samplers:
        seen.clear()
        with watching(lambda states, logits: seen.append((states, logits))):
            watched = sample(method, sampler=sampler, guidance=guidance)
        assert torch.equal(watched, sample(method, sampler=sampler, guidance=guidance))
        assert len(seen) == method.nfe(sampling(5, sampler)), "one for each network call without guidance"
        assert all(len(states) == len(logits) == B and logits.shape[2] == CODES for states, logits in seen)
    seen.clear()
    assert torch.equal(sample(method, guidance=guidance), plain)
    assert not seen, "nobody looks on outside"


@every
def test_what_an_onlooker_raises_ends_the_sampling(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method, calls = made(name), []
    forward = method.network.forward
    monkeypatch.setattr(method.network, "forward", lambda *given: calls.append(1) or forward(*given))

    def stop(states: Tensor, logits: Tensor) -> None:
        if len(calls) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError), watching(stop):
        sample(method)
    assert len(calls) == 2
    sample(method)


def some(seed: int = 0) -> Tensor:
    """Half of the tokens known; of image 0 none, of image 1 all."""
    known = torch.where(integers(2, B, TOKENS, seed=seed) > 0, integers(CODES, B, TOKENS, seed=seed + 10), -1)
    known[0], known[1] = -1, integers(CODES, TOKENS, seed=seed + 20)
    return known


@filling
@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_known_tokens_come_back_and_the_others_are_drawn(name: str, guidance: float) -> None:
    assert_filled_in(name, guidance=guidance)


def test_known_tokens_come_back_from_the_ddim_sampler_too() -> None:
    assert_filled_in("lcmd", sampler="ddim")


def assert_filled_in(name: str, **options: Any) -> None:
    method, known = made(name), some()
    one, other = (sample(method, known, seed=seed, **options) for seed in (1, 2))
    assert torch.equal(one[known >= 0], known[known >= 0])
    assert torch.equal(other[known >= 0], known[known >= 0])
    assert (one[known < 0] != other[known < 0]).float().mean() > 0.1
    assert 0 <= int(one.min()) <= int(one.max()) < CODES


@filling
def test_what_is_known_of_an_image_steers_the_rest_of_it(name: str) -> None:
    method, known = made(name), some()
    others = torch.where(known >= 0, (known + 1) % CODES, -1)
    assert (sample(method, known) != sample(method, others))[known < 0].any()


@filling
def test_knowing_nothing_changes_nothing_and_knowing_all_leaves_nothing_to_draw(name: str) -> None:
    method, nothing, everything = made(name), torch.full((B, TOKENS), -1), integers(CODES, B, TOKENS)
    assert torch.equal(sample(method, nothing), sample(method))
    assert torch.equal(sample(method, everything), everything)


@filling
def test_filling_in_does_not_depend_on_the_images_beside_an_image(name: str) -> None:
    """Though every image knows another number of tokens."""
    method, known = made(name), some()
    whole = sample(method, known)
    assert torch.equal(torch.cat([sample(method, known, rows=rows) for rows in ROWS.split(5)]), whole)


def test_an_autoregressive_model_refuses_to_hold_tokens_fixed_in_one_line() -> None:
    method = made("autoregressive")
    with pytest.raises(ConfigError, match=r"^Autoregressive draws tokens in raster order .*: choose another") as error:
        sample(method, some())
    assert "\n" not in str(error.value)
    assert [name for name in METHODS if not made(name).supports_inpainting] == ["autoregressive"]
