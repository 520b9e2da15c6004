"""The discriminator and the balance of gradients."""

import pytest
import torch

from tests.factory import normal
from tests.tokenizer_fit.fitting import FULL
from tests.tokenizers import QUICK, TINY, blobs
from vqlcmd.tokenizer.pixels import to_float
from vqlcmd.tokenizer_fit.adversary import build, gradient_ratio, hinge, smallest_side, verdict
from vqlcmd.tokenizer_fit.fit import build as build_vqgan
from vqlcmd.tokenizer_fit.objective import Objective, continuous


def test_the_hinge_loss_is_one_without_an_opinion_and_zero_beyond_the_margins():
    ones = torch.ones(2, 1, 3, 3)
    assert hinge(0 * ones, 0 * ones) == 1
    assert hinge(1 * ones, -1 * ones) == 0
    assert hinge(-ones, ones) == 2
    assert verdict(ones) == -1


def test_scores_of_an_image_do_not_depend_on_the_others():
    critic = build(8, 2, seed=0)
    images = normal(3, 3, 16, 16)
    torch.testing.assert_close(critic(images)[:1], critic(images[:1]))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_smallest_side_gives_one_patch_and_a_smaller_one_fails(layers: int):
    critic, side = build(8, layers, seed=0), smallest_side(layers)
    assert critic(torch.zeros(1, 3, side, side)).shape[2:] == (1, 1)
    with pytest.raises(RuntimeError):
        critic(torch.zeros(1, 3, side - 2, side - 2))


def test_the_discriminator_learns_to_tell_two_kinds_apart():
    critic = build(8, 1, seed=0)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    real, fake = to_float(blobs(16)), normal(16, 3, 8, 8)
    for _ in range(30):
        optimizer.zero_grad()
        hinge(critic(real), critic(fake)).backward()
        optimizer.step()
    assert hinge(critic(real), critic(fake)) < 0.2


def test_a_ratio_of_gradients_has_no_gradient_and_a_bound():
    first = torch.tensor([3.0, 4.0], requires_grad=True)
    ratio = gradient_ratio(first, torch.tensor([0.0, 10.0]))
    assert ratio == pytest.approx(0.5, rel=1e-4)
    assert not ratio.requires_grad
    assert gradient_ratio(100 * first, torch.zeros(2)) == 1e4


def test_the_adaptive_weight_makes_both_gradients_equal_at_the_last_layer():
    vqgan = build_vqgan(TINY, 0)
    settings = QUICK.model_copy(update={**FULL, "adversarial": 1.0, "l1": 0.0, "codebook": 0.0})
    critic = build(8, 1, seed=0)
    x_BCSS = to_float(blobs(4))
    coded = continuous(vqgan, x_BCSS, settings)
    y_BCSS = vqgan.decode_latents(coded.q)
    _, terms = Objective(vqgan, settings, None, critic)(x_BCSS, y_BCSS, coded, 1.0)
    last = vqgan.decoder.get_parameter("conv_out.weight")
    norms = [
        torch.autograd.grad(term, last, retain_graph=True)[0].norm()
        for term in (terms["l2"], terms["adversarial_weight"] * terms["adversarial"])
    ]
    assert norms[0] == pytest.approx(norms[1].item(), rel=0.05)
    fixed = settings.model_copy(update={"discriminator": settings.discriminator.model_copy(update={"adaptive": False})})
    _, terms = Objective(vqgan, fixed, None, critic)(x_BCSS, vqgan.decode_latents(coded.q), coded, 1.0)
    assert terms["adversarial_weight"] == 1
