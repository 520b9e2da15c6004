"""The moving average of a tokenizer's weights."""

import dataclasses

import torch

from tests.factory import perturb
from tests.tokenizers import TINY, blobs, seeded
from vqlcmd.tokenizer.blocks import Variant
from vqlcmd.tokenizer.pixels import to_float
from vqlcmd.tokenizer_fit.average import Average


def test_without_a_decay_the_weights_themselves_are_kept():
    vqgan = seeded(TINY)
    assert Average(vqgan, 0.0).kept is vqgan


def test_the_average_forgets_at_its_decay_once_it_is_old_and_faster_before():
    vqgan = seeded(TINY)
    average = Average(vqgan, 0.75)
    start = vqgan.decoder.get_parameter("conv_in.bias").clone()
    perturb(vqgan)
    moved = vqgan.decoder.get_parameter("conv_in.bias")
    average.update(0)
    expected = start + (1 - 1 / 10) * (moved - start)
    torch.testing.assert_close(average.kept.decoder.get_parameter("conv_in.bias"), expected)
    average.update(10_000)
    torch.testing.assert_close(average.kept.decoder.get_parameter("conv_in.bias"), expected + 0.25 * (moved - expected))


def test_settled_the_weights_make_the_tokens_that_the_average_keeps_making():
    vqgan, images = seeded(TINY), to_float(blobs(32))
    average = Average(vqgan, 0.9)
    perturb(vqgan)
    for step in range(3):
        average.update(step)
    perturb(vqgan, seed=1)
    kept = average.kept.encode(images)
    assert not torch.equal(vqgan.encode(images), kept)
    average.settle()
    assert torch.equal(vqgan.encode(images), kept)
    perturb(vqgan.decoder)
    average.update(4)
    assert torch.equal(average.kept.encode(images), kept)


def test_averaged_unit_codes_keep_their_norm():
    vqgan = seeded(dataclasses.replace(TINY, variant=Variant(unit_codes=True)))
    average = Average(vqgan, 0.9)
    average.update(5)
    torch.testing.assert_close(average.kept.codebook.norm(dim=1), torch.ones(16))
