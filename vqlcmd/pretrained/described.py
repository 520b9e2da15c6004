"""The VQGAN that the section `vqgan` of params.yaml describes, before there is a file."""

from dataclasses import replace

import torch

from vqlcmd.params import Vqgan
from vqlcmd.pretrained.families import LAYOUTS
from vqlcmd.tokenizer.blocks import TAMING, Architecture, Variant
from vqlcmd.tokenizer.vqgan import VQGAN

FAMILIES = {name: layout.variant for name, layout in LAYOUTS.items()} | {
    "unleashing": replace(LAYOUTS["unleashing"].variant, quant_convs=False, extra_blocks=0),
    "maskgit": replace(
        LAYOUTS["maskgit"].variant,
        mid_attention=False,
        extra_blocks=0,
        biases=False,
        pooled=True,
        shortcut="output",
        latent_kernel=1,
        quant_convs=False,
    ),
}
"""The arithmetic of published tokenizers by `vqgan.format`: their layout's, and what else tensors would show."""


def architecture(settings: Vqgan, size: int) -> Architecture:
    """The architecture that `settings` describe, for images of `size` x `size` pixels.

    If a checkpoint is named, the architecture in its file takes precedence.
    """
    fitted = Variant(unit_codes=settings.fit.unit_codes)
    variant = FAMILIES.get(settings.format, TAMING) if settings.checkpoint else fitted
    return Architecture(
        resolution=size,
        **settings.model_dump(include={"ch", "num_res_blocks", "z_channels", "embed_dim", "n_embed"}),
        ch_mult=tuple(settings.ch_mult),
        attn_resolutions=tuple(settings.attn_resolutions),
        variant=variant,
    )


def without_weights(settings: Vqgan, size: int) -> VQGAN:
    """The tokenizer on the device `meta`: shapes without numbers, for counting costs."""
    with torch.device("meta"):
        return VQGAN(architecture(settings, size)).eval().requires_grad_(False)
