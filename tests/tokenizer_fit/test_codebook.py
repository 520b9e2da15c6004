"""Codes: k-means, moving averages, gradients, and new starts for those that nobody uses."""

import dataclasses

import pytest
import torch

from tests.factory import normal
from tests.tokenizers import TINY, seeded
from vqlcmd.tokenizer_fit.codebook import LearnedCodebook, MovingCodebook, k_means

Z_RD = torch.tensor([[3.0, 1.0], [5.0, 1.0], [4.0, -2.0], [4.0, -4.0]])
CODES_R = torch.tensor([0, 0, 1, 1])


def three_codes():
    vqgan = seeded(dataclasses.replace(TINY, n_embed=3, embed_dim=2))
    vqgan.codebook.copy_(torch.tensor([[0.0, 1.0], [0.0, -1.0], [50.0, 50.0]]))
    return vqgan, torch.Generator().manual_seed(0)


def test_k_means_finds_clusters_that_lie_apart():
    centres_KD = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    z_RD = (centres_KD[:, None] + 0.1 * normal(4, 50, 2)).flatten(0, 1)
    e_KD = k_means(z_RD, 4, torch.Generator().manual_seed(0))
    assert torch.cdist(centres_KD, e_KD).min(dim=1).values.max() < 0.1


def test_codes_move_to_the_mean_of_their_latents_and_idle_ones_start_anew():
    vqgan, random = three_codes()
    moving = MovingCodebook(vqgan, smoothing=0.5, restart=0.05)
    moving.update(Z_RD, CODES_R, random)
    assert vqgan.codebook[2].tolist() == [50.0, 50.0], "not idle for long yet"
    for _ in range(4):
        moving.update(Z_RD, CODES_R, random)
    expected = torch.tensor([[4.0, 1.0], [4.0, -3.0]])
    torch.testing.assert_close(vqgan.codebook[:2], expected, atol=0.2, rtol=0)
    assert vqgan.codebook[2].tolist() in Z_RD.tolist()


def test_a_learned_codebook_is_left_to_the_optimizer_but_for_idle_codes():
    vqgan, random = three_codes()
    before = vqgan.codebook.clone()
    learned = LearnedCodebook(vqgan, smoothing=0.5, restart=0.05)
    for _ in range(5):
        learned.update(Z_RD, CODES_R, random)
    assert torch.equal(vqgan.codebook[:2], before[:2])
    assert vqgan.codebook[2].tolist() in Z_RD.tolist()


@pytest.mark.parametrize("kind", [MovingCodebook, LearnedCodebook])
def test_with_restart_zero_no_code_starts_anew(kind):
    vqgan, random = three_codes()
    table = kind(vqgan, smoothing=0.5, restart=0.0)
    for _ in range(20):
        table.update(Z_RD, CODES_R, random)
    torch.testing.assert_close(vqgan.codebook[2], torch.tensor([50.0, 50.0]), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", [MovingCodebook, LearnedCodebook])
def test_a_codebook_goes_on_from_its_saved_state(kind):
    (one, random), (other, again) = three_codes(), three_codes()
    first, second = kind(one, 0.5, 0.05), kind(other, 0.5, 0.05)
    first.update(Z_RD, CODES_R, random)
    other.load_state_dict(one.state_dict())
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    again.set_state(random.get_state())
    for _ in range(5):
        first.update(Z_RD, CODES_R, random)
        second.update(Z_RD, CODES_R, again)
    assert torch.equal(one.codebook, other.codebook)
