"""Quality of reconstructions: PSNR, SSIM, a perceptual distance, and how evenly codes are used.

Shapes: B images, C channels, S pixels a side, N tokens, K codes.
"""

import math

import torch
from torch import Tensor, nn

from vqlcmd.tokenizer.pixels import to_float, to_uint8
from vqlcmd.tokenizer.vqgan import VQGAN
from vqlcmd.tokenizer_fit.ssim import ssim

MOST_PIXELS = 256 * 64**2
"""Most pixels that are encoded at once."""
MOST_IMAGES = 256


def at_once(images_BCSS: Tensor) -> int:
    """How many images of this size are encoded at once."""
    return max(1, min(MOST_IMAGES, MOST_PIXELS // images_BCSS.shape[-1] ** 2))


def usage(uses_K: Tensor) -> dict[str, float]:
    """`perplexity` of the codes' frequencies, from 1 to K, and `codes_used`, the share of K that occurs."""
    uses_K = uses_K.double()
    entropy = torch.special.entr(uses_K / uses_K.sum()).sum()
    return {"perplexity": entropy.exp().item(), "codes_used": (uses_K > 0).double().mean().item()}


def psnr(mse: float) -> float:
    """PSNR in dB for a mean squared error in squared units of the full range 0..1; at most 100."""
    return -10 * math.log10(max(mse, 1e-10))


@torch.no_grad()
def statistics(vqgan: VQGAN, images_BCSS: Tensor, perceptual: nn.Module | None = None) -> dict[str, float]:
    """{name: value} of how well `images` (uint8) are reconstructed, as 8-bit pixels, and how evenly codes are used.

    `mse` is in squared units of the full range 0..1, `psnr` in dB, `ssim` at most 1, `perplexity` from 1 to K,
    `codes_used` a fraction of K, `perceptual` the distance by the given network, if any.
    """
    squares, totals = 0.0, dict[str, float]()
    uses_K = torch.zeros(vqgan.architecture.n_embed, dtype=torch.float64)
    for part in images_BCSS.split(at_once(images_BCSS)):
        tokens_BN = vqgan.encode(to_float(part))
        uses_K += torch.bincount(tokens_BN.flatten(), minlength=len(uses_K)).cpu()
        decoded = to_uint8(vqgan.decode(tokens_BN))
        squares += ((decoded.double() - part) / 255).square().sum().item()
        # In float64, since SSIM's variances are differences of squares.
        values = {"ssim": ssim(decoded.double(), part.double())}
        if perceptual is not None:
            values["perceptual"] = perceptual(to_float(decoded), to_float(part))
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + float(value.sum())
    mse = squares / images_BCSS.numel()
    means = {name: value / len(images_BCSS) for name, value in totals.items()}
    return {"psnr": psnr(mse), "mse": mse, **means, **usage(uses_K)}


@torch.no_grad()
def reconstructions(vqgan: VQGAN, images_BCSS: Tensor, *, quantised: bool) -> Tensor:
    """Reconstructions (uint8) of images (uint8): from tokens if `quantised`, else from latents."""
    shown = []
    for part in images_BCSS.split(at_once(images_BCSS)):
        if quantised:
            shown.append(to_uint8(vqgan.decode(vqgan.encode(to_float(part)))))
        else:
            shown.append(to_uint8(vqgan.decode_latents(vqgan.latents(to_float(part)))))
    return torch.cat(shown)
