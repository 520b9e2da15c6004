"""Structural similarity (SSIM) of images.

Shapes: B images, C channels, S pixels a side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def ssim(a_BCSS: Tensor, b_BCSS: Tensor, span: float = 255.0) -> Tensor:
    """(2 m_a m_b + c_1)(2 cov + c_2) / ((m_a^2 + m_b^2 + c_1)(v_a + v_b + c_2)), averaged over positions: (B,).

    Means and variances are taken under a Gaussian window of 11 pixels inside the image, or fewer in a smaller image;
    c_1 = (0.01 span)^2, c_2 = (0.03 span)^2. Wang et al. 2004, at the images' own size.
    """
    channels, side = a_BCSS.shape[1], a_BCSS.shape[-1]
    size = min(WINDOW, side - 1 + side % 2)
    places = torch.arange(size, dtype=a_BCSS.dtype, device=a_BCSS.device) - (size - 1) / 2
    line = torch.exp(-(places**2) / (2 * SIGMA**2))
    line = (line / line.sum()).expand(channels, 1, 1, size)

    def blurred(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, line, groups=channels), line.mT, groups=channels)

    mean_a, mean_b = blurred(a_BCSS), blurred(b_BCSS)
    variances = blurred(a_BCSS**2) - mean_a**2 + blurred(b_BCSS**2) - mean_b**2
    covariance = blurred(a_BCSS * b_BCSS) - mean_a * mean_b
    c_1, c_2 = (K1 * span) ** 2, (K2 * span) ** 2
    similar = (2 * mean_a * mean_b + c_1) * (2 * covariance + c_2)
    similar = similar / ((mean_a**2 + mean_b**2 + c_1) * (variances + c_2))
    return similar.mean(dim=(1, 2, 3))
