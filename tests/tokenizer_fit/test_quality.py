"""The numbers of metrics/vqgan.json."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.factory import normal
from tests.tokenizers import SMALL, TINY, blobs, seeded
from vqlcmd.tokenizer.pixels import to_float, to_uint8
from vqlcmd.tokenizer_fit import quality
from vqlcmd.tokenizer_fit.quality import reconstructions, statistics, usage
from vqlcmd.tokenizer_fit.ssim import ssim


def test_the_statistics_are_those_of_decoded_pixels():
    vqgan, images = seeded(TINY), blobs(64)
    numbers = statistics(vqgan, images)
    tokens = vqgan.encode(to_float(images))
    decoded = to_uint8(vqgan.decode(tokens))
    assert torch.equal(reconstructions(vqgan, images, quantised=True), decoded)
    assert numbers["mse"] == pytest.approx(((decoded.double() - images) / 255).square().mean().item())
    assert numbers["psnr"] == pytest.approx(-10 * math.log10(numbers["mse"]))
    assert numbers["ssim"] == pytest.approx(ssim(decoded.double(), images.double()).mean().item())
    share = torch.bincount(tokens.flatten(), minlength=16).double() / tokens.numel()
    assert numbers["perplexity"] == pytest.approx(math.exp(-(share[share > 0] * share[share > 0].log()).sum()))
    assert numbers["codes_used"] == pytest.approx((share > 0).double().mean().item())


class Squares(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).square().mean(dim=(1, 2, 3))


def test_the_statistics_do_not_depend_on_how_many_images_are_encoded_at_once(monkeypatch: pytest.MonkeyPatch):
    vqgan, images = seeded(TINY), blobs(10)
    whole = statistics(vqgan, images, Squares())
    monkeypatch.setattr(quality, "MOST_PIXELS", 3 * 8**2)
    assert quality.at_once(images) == 3
    assert statistics(vqgan, images, Squares()) == pytest.approx(whole, rel=1e-3, abs=1e-5)
    assert whole["perceptual"] == pytest.approx(4 * whole["mse"], rel=1e-3)


def test_even_use_of_half_the_codes_has_their_number_as_perplexity():
    assert usage(torch.tensor([5, 5, 5, 0, 0, 0])) == pytest.approx({"perplexity": 3.0, "codes_used": 0.5})


def test_ssim_is_one_for_equal_pictures_and_known_for_flat_ones():
    images = normal(2, 3, 16, 16).double() * 60 + 128
    torch.testing.assert_close(ssim(images, images), torch.ones(2).double())
    a, b, c = 50.0, 200.0, (0.01 * 255) ** 2
    flat = torch.full((1, 3, 16, 16), a).double(), torch.full((1, 3, 16, 16), b).double()
    torch.testing.assert_close(ssim(*flat), torch.tensor([(2 * a * b + c) / (a**2 + b**2 + c)]).double())


def test_ssim_is_that_of_its_formula_window_by_window():
    a, b = (255 * torch.rand(1, 1, 13, 12, generator=torch.Generator().manual_seed(n)).double() for n in (0, 1))
    line = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    found = []
    for top in range(3):
        for left in range(2):
            x, y = (image[0, 0, top : top + 11, left : left + 11].numpy() for image in (a, b))
            m_x, m_y = (window * x).sum(), (window * y).sum()
            v_x, v_y = (window * (x - m_x) ** 2).sum(), (window * (y - m_y) ** 2).sum()
            cov = (window * (x - m_x) * (y - m_y)).sum()
            c_1, c_2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
            found.append((2 * m_x * m_y + c_1) * (2 * cov + c_2) / ((m_x**2 + m_y**2 + c_1) * (v_x + v_y + c_2)))
    # The width decides on the window: 12 pixels hold one of 11.
    assert ssim(a, b).item() == pytest.approx(float(np.mean(found)))


def test_ssim_takes_pictures_that_are_smaller_than_its_window():
    assert SMALL.resolution == 16
    small = normal(2, 3, 8, 8).double()
    assert (ssim(small, small + 1) < 1).all()
