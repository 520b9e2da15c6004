"""Fitting a small VQGAN: it learns, it repeats itself, and it says when it fails."""

import dataclasses
import math

import pytest
import torch

from tests.factory import normal
from tests.tokenizers import QUICK, TINY, blobs, seeded
from vqlcmd.runtime.errors import Diverged
from vqlcmd.tokenizer.pixels import to_float, to_uint8
from vqlcmd.tokenizer_fit.fit import MovingCodebook, all_latents, fit, k_means, statistics


def test_k_means_finds_clusters_that_lie_apart():
    centres_KD = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    z_RD = (centres_KD[:, None] + 0.1 * normal(4, 50, 2)).flatten(0, 1)
    e_KD = k_means(z_RD, 4, torch.Generator().manual_seed(0))
    assert torch.cdist(centres_KD, e_KD).min(dim=1).values.max() < 0.1


@pytest.fixture(scope="module")
def fitted():
    terms = []
    vqgan, numbers = fit(blobs(64), TINY, QUICK, lambda step, values: terms.append((step, values)))
    return vqgan, numbers, terms


def test_the_fit_reports_every_step_and_the_loss_falls(fitted):
    _, _, terms = fitted
    assert [step for step, _ in terms] == list(range(QUICK.steps))
    reconstruction = [values["reconstruction"] for _, values in terms]
    assert sum(reconstruction[-5:]) < 0.5 * sum(reconstruction[:5])
    assert any(values["commitment"] > 0 for _, values in terms)


def test_the_same_seed_fits_the_same_weights_and_another_does_not(fitted):
    state = torch.random.get_rng_state()
    again, numbers = fit(blobs(64), TINY, QUICK)
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator is left alone"
    assert numbers == fitted[1]
    for key, value in fitted[0].state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    other, _ = fit(blobs(64), TINY, dataclasses.replace(QUICK, steps=2, seed=1))
    assert not torch.equal(other.codebook, again.codebook)


def test_the_statistics_are_those_of_decoded_pixels(fitted):
    vqgan, numbers, _ = fitted
    images = blobs(64)
    tokens = vqgan.encode(to_float(images))
    difference = to_uint8(vqgan.decode(tokens)).double() - images
    assert numbers["mse"] == pytest.approx((difference / 255).square().mean().item())
    assert numbers["psnr"] == pytest.approx(-10 * math.log10(numbers["mse"]))
    share = torch.bincount(tokens.flatten(), minlength=16).double() / tokens.numel()
    assert numbers["perplexity"] == pytest.approx(math.exp(-(share[share > 0] * share[share > 0].log()).sum()))
    assert numbers["codes_used"] == pytest.approx((share > 0).double().mean().item())
    assert statistics(vqgan, images) == numbers


def test_the_fitted_codes_lie_among_the_latents_and_most_are_used(fitted):
    vqgan, numbers, _ = fitted
    z_BDHW = all_latents(vqgan, blobs(64))
    assert vqgan.codebook.abs().max() < 2 * z_BDHW.abs().max()
    assert numbers["codes_used"] > 0.5
    assert not any(p.requires_grad for p in vqgan.parameters())


def test_the_encoder_learns_through_the_quantisation_and_the_codes_follow():
    """With no act but the quantised one, and no commitment, gradients reach the encoder only straight through."""
    only = dataclasses.replace(QUICK, commitment=0.0, decoder_only_fraction=0.0)
    before, _ = fit(blobs(16), TINY, dataclasses.replace(only, steps=1))
    after, _ = fit(blobs(16), TINY, dataclasses.replace(only, steps=3))
    distance = torch.cdist(all_latents(before, blobs(16)).flatten(2).mT, before.codebook).min(dim=2).values
    assert distance.square().mean() < 0.6 * 8 * all_latents(before, blobs(16)).var(), "k-means made the codes"
    for key in ("encoder.conv_in.weight", "quantize.embedding.weight"):
        assert not torch.equal(before.state_dict()[key], after.state_dict()[key]), key


def test_codes_move_to_the_mean_of_their_latents_and_idle_ones_start_anew():
    vqgan = seeded(dataclasses.replace(TINY, n_embed=3, embed_dim=2))
    vqgan.codebook.copy_(torch.tensor([[0.0, 1.0], [0.0, -1.0], [50.0, 50.0]]))
    z_RD = torch.tensor([[3.0, 1.0], [5.0, 1.0], [4.0, -2.0], [4.0, -4.0]])
    moving, random = MovingCodebook(vqgan, smoothing=0.5), torch.Generator().manual_seed(0)
    moving.update(z_RD, torch.tensor([0, 0, 1, 1]), random)
    assert vqgan.codebook[2].tolist() == [50.0, 50.0], "not idle for long yet"
    for _ in range(4):
        moving.update(z_RD, torch.tensor([0, 0, 1, 1]), random)
    expected = torch.tensor([[4.0, 1.0], [4.0, -3.0]])
    torch.testing.assert_close(vqgan.codebook[:2], expected, atol=0.2, rtol=0)
    assert vqgan.codebook[2].tolist() in z_RD.tolist()


def test_a_loss_that_is_not_finite_stops_the_fit_and_names_the_step():
    with pytest.raises(Diverged, match="not finite at step 1"):
        fit(blobs(16), TINY, dataclasses.replace(QUICK, learning_rate=1e30))
