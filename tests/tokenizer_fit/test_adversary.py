"""The discriminator and the balance of gradients."""

import pytest
import torch

from tests.factory import normal
from tests.tokenizer_fit.fitting import FULL
from tests.tokenizers import QUICK, TINY, blobs
from vqlcmd.tokenizer.pixels import to_float
from vqlcmd.tokenizer_fit.adversary import build, gradient_ratio, hinge, smallest_side, verdict
from vqlcmd.tokenizer_fit.fit import build as build_vqgan
from vqlcmd.tokenizer_fit.objective import Objective, quantised


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


@pytest.mark.parametrize("adaptive", [True, False])
def test_the_loss_and_its_gradients_are_those_of_the_sum_written_down(adaptive: bool):
    vqgan, critic, x_BCSS = build_vqgan(TINY, 0), build(8, 1, seed=0), to_float(blobs(4))
    settings = QUICK.model_copy(update={**FULL, "adversarial": 0.7, "l1": 0.5, "codebook": 0.0})
    given = settings.discriminator.model_copy(update={"adaptive": adaptive})
    settings = settings.model_copy(update={"discriminator": given})
    learned, last = list(vqgan.parameters()), vqgan.decoder.get_parameter("conv_out.weight")
    coded = quantised(vqgan, x_BCSS, settings)
    y_BCSS = vqgan.decode_latents(coded.q)

    reconstruction = settings.l2 * (y_BCSS - x_BCSS).square().mean() + 0.5 * (y_BCSS - x_BCSS).abs().mean()
    adversarial = verdict(critic(y_BCSS))
    norms = [torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (reconstruction, adversarial)]
    weight = (norms[0] / norms[1]).detach() if adaptive else torch.tensor(1.0)
    written = reconstruction + 0.7 * 0.25 * weight * adversarial + settings.commitment * coded.terms["commitment"]
    expected = torch.autograd.grad(written, learned, retain_graph=True, allow_unused=True)

    loss, terms = Objective(vqgan, settings, None, critic)(x_BCSS, y_BCSS, coded, 0.25)
    assert loss.item() == pytest.approx(written.item(), rel=1e-3)
    assert terms["adversarial_weight"].item() == pytest.approx(weight.item(), rel=1e-2)
    found = torch.autograd.grad(loss, learned, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one - other).norm() <= 1e-2 * other.norm() + 1e-7
    assert all(parameter.grad is None for parameter in critic.parameters())
