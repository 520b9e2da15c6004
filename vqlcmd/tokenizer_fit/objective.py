"""The tokenizer's loss: its terms and weights, and the quantisation between encoder and decoder.

Shapes: B images, C channels, S pixels a side, D codebook dimensions, H and W the grid, N = H W tokens, R rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqlcmd.params.vqgan import VqganFit
from vqlcmd.runtime import distributed
from vqlcmd.tokenizer.vqgan import VQGAN
from vqlcmd.tokenizer_fit.adversary import gradient_ratio, verdict


@dataclass(frozen=True)
class Coded:
    """The decoder's input `q` [B, D, H, W], and how it was quantised.

    `codes` [R] are those of this process; `z` [R, D] the latents, if the codebook is trained on them; `terms` the loss
    terms of the quantisation.
    """

    q: Tensor
    z: Tensor | None = None
    codes: Tensor | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict)


def rows(z_BDHW: Tensor) -> Tensor:
    """Latents as rows [R, D], image by image, row by row."""
    return z_BDHW.permute(0, 2, 3, 1).flatten(0, 2)


def latents(vqgan: VQGAN, x_BCSS: Tensor, bf16: bool) -> Tensor:
    """`VQGAN.latents`, with the encoder in bf16 if `bf16`, for training: float32 [B, D, H, W]."""
    if not bf16:
        return vqgan.latents(x_BCSS)
    with torch.autocast(x_BCSS.device.type, torch.bfloat16):
        z_BDHW = vqgan.quant_conv(vqgan.encoder(x_BCSS))
    return vqgan.unit(z_BDHW.float())


def continuous(vqgan: VQGAN, x_BCSS: Tensor, settings: VqganFit) -> Coded:
    """First phase: the latents without quantisation."""
    return Coded(latents(vqgan, x_BCSS, settings.precision == "bf16"))


def quantised(vqgan: VQGAN, x_BCSS: Tensor, settings: VqganFit) -> Coded:
    """Second phase: the nearest codes, with straight-through gradients to the latents."""
    z_BDHW = latents(vqgan, x_BCSS, settings.precision == "bf16")
    codes_BN = vqgan.quantize.nearest(z_BDHW.detach())
    code_BDHW = vqgan.quantize.lookup(codes_BN)
    terms = {"commitment": F.mse_loss(z_BDHW, code_BDHW.detach())}
    if settings.codebook:
        terms["codebook"] = F.mse_loss(code_BDHW, z_BDHW.detach())
    q_BDHW = z_BDHW + (code_BDHW - z_BDHW).detach()
    return Coded(q_BDHW, rows(z_BDHW.detach()), codes_BN.flatten(), terms)


def settled(vqgan: VQGAN, x_BCSS: Tensor, settings: VqganFit) -> Coded:
    """Third phase: the codes of the final tokens, without gradients for encoder and codebook."""
    tokens_BN = vqgan.encode(x_BCSS)
    return Coded(vqgan.quantize.lookup(tokens_BN).detach(), codes=tokens_BN.flatten())


class Objective:
    """The loss terms of images and their reconstructions, and their weighted sum."""

    def __init__(
        self, vqgan: VQGAN, settings: VqganFit, perceptual: nn.Module | None, discriminator: nn.Module | None
    ) -> None:
        self._settings, self._discriminator = settings, discriminator
        self._perceptual = perceptual if settings.perceptual else None
        last = vqgan.decoder.get_submodule("conv_out").weight
        assert isinstance(last, Tensor)
        self._last = last

    def __call__(
        self, x_BCSS: Tensor, y_BCSS: Tensor, coded: Coded, adversarial: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and {name: unweighted term}. `adversarial` is the fraction of that term's full weight to use."""
        settings = self._settings
        terms: dict[str, Tensor] = {}
        balanced = self._discriminator is not None and bool(adversarial)
        # Each network is backpropagated through once: the rest starts from the gradients with respect to the images.
        seen_BCSS = y_BCSS.detach().requires_grad_() if balanced else y_BCSS
        weights = {"l2": settings.l2, "l1": settings.l1, "perceptual": settings.perceptual}
        if settings.l2:
            terms["l2"] = F.mse_loss(seen_BCSS, x_BCSS)
        if settings.l1:
            terms["l1"] = F.l1_loss(seen_BCSS, x_BCSS)
        if self._perceptual is not None:
            terms["perceptual"] = self._perceptual(seen_BCSS, x_BCSS).mean()
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        if self._discriminator is not None and balanced:
            terms["adversarial"] = verdict(self._discriminator(seen_BCSS).float())
            slopes = [torch.autograd.grad(term, seen_BCSS)[0] for term in (loss, terms["adversarial"])]
            weight = self._balance(y_BCSS, slopes) if settings.discriminator.adaptive else torch.ones_like(loss)
            share = settings.adversarial * adversarial * weight
            terms["adversarial_weight"] = weight
            loss = _with_gradient(loss + share * terms["adversarial"], y_BCSS, slopes[0] + share * slopes[1])
        for name, weight in (("commitment", settings.commitment), ("codebook", settings.codebook)):
            if name in coded.terms:
                terms[name] = coded.terms[name]
                loss = loss + weight * coded.terms[name]
        return loss, terms

    def _balance(self, y_BCSS: Tensor, slopes: list[Tensor]) -> Tensor:
        """Ratio of the terms' gradient norms at the decoder's last weights, over all processes: taming's lambda.

        `slopes` are the terms' gradients with respect to the images.
        """
        gradients = [torch.autograd.grad(y_BCSS, self._last, slope, retain_graph=True)[0] for slope in slopes]
        distributed.average(gradients)
        return gradient_ratio(*gradients)


def _with_gradient(value: Tensor, at: Tensor, slope: Tensor) -> Tensor:
    """A scalar equal to `value` whose gradient with respect to `at` is `slope`."""
    line = (at * slope.detach()).sum()
    return value.detach() + (line - line.detach())
