"""Training a small VQGAN: it learns, it repeats itself, it goes on where it stopped, and it says when it fails."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tokenizer_fit.fitting import FULL, fitted
from tests.tokenizers import QUICK, TINY, blobs, seeded
from vqlcmd.params.vqgan import VqganFit
from vqlcmd.runtime.errors import ConfigError, Diverged, Interrupted
from vqlcmd.tokenizer.blocks import Variant
from vqlcmd.tokenizer.pixels import to_float, to_uint8
from vqlcmd.tokenizer_fit.fit import adversarial_ramp, build
from vqlcmd.tokenizer_fit.objective import rows

PLAIN: dict[str, Any] = {}


def same(a: Any, b: Any) -> bool:
    return all(torch.equal(a.state_dict()[key], value) for key, value in b.state_dict().items())


def stops_after(steps: int) -> Callable[[], bool]:
    """Says so when it is asked for the last of so many steps."""
    return iter([False] * (steps - 1) + [True]).__next__


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return fitted(tmp_path_factory.mktemp("plain"))


def test_a_row_every_so_many_steps_and_the_loss_falls(plain):
    _, found = plain
    assert [row["step"] for row in found] == [10, 20, 30]
    assert found[-1]["l2"] < 0.5 * found[0]["l2"]
    assert found[-1]["psnr"] > found[0]["psnr"]
    assert found[1]["commitment"] > 0
    assert 0 < found[1]["codes_used"] <= 1 <= found[1]["perplexity"] <= TINY.n_embed


def test_the_same_seed_fits_the_same_weights_and_another_does_not(plain, tmp_path: Path):
    state = torch.random.get_rng_state()
    again, found = fitted(tmp_path / "again")
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is left alone"
    assert found == plain[1]
    assert same(again, plain[0])
    other, _ = fitted(tmp_path / "other", {"steps": 2}, seed=1)
    assert not torch.equal(other.codebook, again.codebook)


def test_the_fitted_codes_lie_among_the_latents_and_most_are_used(plain):
    vqgan, found = plain
    with torch.no_grad():
        z_BDHW = vqgan.latents(to_float(blobs(64)))
    assert vqgan.codebook.abs().max() < 2 * z_BDHW.abs().max()
    assert found[-1]["codes_used"] > 0.5
    assert not any(p.requires_grad for p in vqgan.parameters())


def test_the_encoder_learns_through_the_quantisation_and_the_codes_follow(tmp_path: Path):
    """With no phase but the quantised one, and no commitment, gradients reach the encoder only straight through."""
    only = {"commitment": 0.0, "continuous_fraction": 0.0, "decoder_only_fraction": 0.0}
    before, _ = fitted(tmp_path / "1", {**only, "steps": 1}, images=16)
    after, _ = fitted(tmp_path / "3", {**only, "steps": 3}, images=16)
    with torch.no_grad():
        z_RD = rows(before.latents(to_float(blobs(16))))
    distance = torch.cdist(z_RD, before.codebook).min(dim=1).values
    assert distance.square().mean() < 0.6 * 8 * z_RD.var(), "k-means made the codes"
    for key in ("encoder.conv_in.weight", "quantize.embedding.weight"):
        assert not torch.equal(before.state_dict()[key], after.state_dict()[key]), key


def test_a_loss_that_is_not_finite_stops_the_fit_and_names_the_step(tmp_path: Path):
    begun = build(TINY, seed=0)
    with torch.no_grad():
        begun.decoder.conv_out.weight.mul_(1e30)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    with pytest.raises(Diverged, match="not finite at step 0"):
        fitted(tmp_path, images=16, begun=begun)


@pytest.mark.parametrize("changes", [PLAIN, FULL], ids=["plain", "all terms"])
def test_an_interrupted_fit_ends_as_an_uninterrupted_one_bit_for_bit(tmp_path: Path, changes: dict[str, Any]):
    """In each of the three acts."""
    whole, found = fitted(tmp_path / "whole", changes)
    for number in (3, 9, 21):
        with pytest.raises(Interrupted, match=f"step {number} of 30"):
            fitted(tmp_path / "parts", changes, stop=stops_after(number - {3: 0, 9: 3, 21: 9}[number]))
    last, again = fitted(tmp_path / "parts", changes)
    assert same(last, whole)
    assert again == found


def test_every_term_has_a_column_and_only_where_it_has_a_weight(tmp_path: Path, plain):
    _, found = fitted(tmp_path, FULL)
    terms = {"l1", "adversarial", "adversarial_weight", "discriminator", "codebook"}
    assert terms <= set(found[-2])
    assert not terms & {name for row in plain[1] for name in row}
    assert "adversarial" not in fitted(tmp_path / "late", {**FULL, "steps": 5, "log_every": 1})[1][0]


def test_the_adversarial_weight_is_zero_then_a_line_up_to_one():
    settings = QUICK.model_copy(update={"steps": 100, **FULL})
    assert [adversarial_ramp(step, settings) for step in (0, 19)] == [0, 0]
    line = [adversarial_ramp(step, settings) for step in range(20, 41)]
    assert line == pytest.approx([(n + 1) / 21 for n in range(21)])
    assert adversarial_ramp(99, settings) == 1
    assert adversarial_ramp(99, QUICK) == 0


def test_unit_codes_have_norm_one(tmp_path: Path):
    architecture = dataclasses.replace(TINY, variant=Variant(unit_codes=True))
    for number, changes in enumerate([{"ema": 0.9}, {"codebook": 1.0}]):
        vqgan, _ = fitted(tmp_path / str(number), {**changes, "steps": 8}, architecture=architecture)
        torch.testing.assert_close(vqgan.codebook.norm(dim=1), torch.ones(16))


def test_a_tokenizer_that_is_trained_further_starts_from_its_own_codes(tmp_path: Path):
    begun = seeded(TINY)
    before = begun.codebook.clone()
    _, found = fitted(tmp_path, {"steps": 1, "learning_rate": 1e-9, "restart": 0.0}, begun=begun)
    assert "commitment" in found[0], "no first phase"
    assert (begun.codebook - before).abs().max() < 0.5, "no k-means"


def test_bf16_trains_about_as_well(tmp_path: Path, plain):
    _, found = fitted(tmp_path, {"precision": "bf16", "steps": 20})
    assert found[0] != plain[1][0]
    assert found[0]["l2"] == pytest.approx(plain[1][0]["l2"], rel=0.3)


def test_a_discriminator_that_is_too_deep_for_the_pictures_is_one_line(tmp_path: Path):
    deep = FULL["discriminator"].model_copy(update={"layers": 3})
    with pytest.raises(ConfigError, match=r"layers 3 needs pictures of 24 pixels, and images.size is 8: lower it"):
        fitted(tmp_path, {**FULL, "discriminator": deep})


def test_what_watches_gets_the_rows_and_what_pictures_look_like(tmp_path: Path):
    seen: list[tuple[int, Tensor]] = []
    vqgan, _ = fitted(tmp_path, watch=lambda found, shown: seen.append((len(found), shown)))
    assert [count for count, _ in seen] == [1, 2, 3]
    assert torch.equal(seen[-1][1], to_uint8(vqgan.decode(vqgan.encode(to_float(blobs(64)[:8])))))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"l2": 0.0}, "l1 and l2 are both 0"),
        ({"perceptual": 0.5}, "needs a perceptual_network"),
        ({"continuous_fraction": 0.7}, "leave no steps to learn codes in"),
    ],
)
def test_parameters_that_cannot_be_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        VqganFit.model_validate(QUICK.model_copy(update=changes).model_dump())


def test_building_leaves_the_global_generator_alone():
    state = torch.random.get_rng_state()
    assert same(build(TINY, 3), build(TINY, 3))
    assert torch.equal(torch.random.get_rng_state(), state)
