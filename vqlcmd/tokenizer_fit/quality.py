"""How well pictures survive their tokens: PSNR, SSIM, a perceptual distance, and how evenly codes are used.

Shapes: B images, C channels, S pixels a side, N tokens, K codes.
"""

import math

import torch
from torch import Tensor, nn

from vqlcmd.tokenizer.pixels import to_float, to_uint8
from vqlcmd.tokenizer.vqgan import VQGAN
from vqlcmd.tokenizer_fit.ssim import ssim

MOST_PIXELS = 256 * 64**2
"""That are encoded at once."""
MOST_IMAGES = 256


def at_once(images_BCSS: Tensor) -> int:
    """How many of such images are encoded together."""
    return max(1, min(MOST_IMAGES, MOST_PIXELS // images_BCSS.shape[-1] ** 2))


def usage(uses_K: Tensor) -> dict[str, float]:
    """`perplexity` of the codes' frequencies, from 1 to K, and `codes_used`, the share of K that occurs."""
    uses_K = uses_K.double()
    entropy = torch.special.entr(uses_K / uses_K.sum()).sum()
    return {"perplexity": entropy.exp().item(), "codes_used": (uses_K > 0).double().mean().item()}


def psnr(mse: float) -> float:
    """In dB, of a mean squared difference in units of the full range: at most 100."""
    return -10 * math.log10(max(mse, 1e-10))


@torch.no_grad()
def statistics(vqgan: VQGAN, images_BCSS: Tensor, perceptual: nn.Module | None = None) -> dict[str, float]:
    """How well `images` (uint8) survive their tokens, as 8-bit pixels, and how evenly the codes are used.

    `mse` is in squared units of the full range 0..1, `psnr` in dB, `ssim` at most 1, `perplexity` from 1 to K,
    `codes_used` a share of K, `perceptual` the distance by the network given.
    """
    squares, totals = 0.0, dict[str, float]()
    uses_K = torch.zeros(vqgan.architecture.n_embed, dtype=torch.float64)
    for part in images_BCSS.split(at_once(images_BCSS)):
        tokens_BN = vqgan.encode(to_float(part))
        uses_K += torch.bincount(tokens_BN.flatten(), minlength=len(uses_K)).cpu()
        decoded = to_uint8(vqgan.decode(tokens_BN))
        squares += ((decoded.double() - part) / 255).square().sum().item()
        # In 64 bits: variances are differences of squares.
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
    """Images (uint8) through their tokens and back, or through their latents while there are no codes: uint8."""
    shown = []
    for part in images_BCSS.split(at_once(images_BCSS)):
        if quantised:
            shown.append(to_uint8(vqgan.decode(vqgan.encode(to_float(part)))))
        else:
            shown.append(to_uint8(vqgan.decode_latents(vqgan.latents(to_float(part)))))
    return torch.cat(shown)
