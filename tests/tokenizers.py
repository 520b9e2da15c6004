"""Small tokenizers for tests: two architectures, seconds of a fit, and pictures to fit it to."""

import dataclasses

import torch
from torch import Tensor

from tests.factory import params
from vqlcmd.tokenizer.vqgan import VQGAN, Architecture

SMALL = Architecture(
    resolution=16,
    ch=32,
    ch_mult=(1, 2, 1),
    num_res_blocks=1,
    attn_resolutions=(8,),
    z_channels=24,
    embed_dim=8,
    n_embed=32,
)
TINY = dataclasses.replace(SMALL, resolution=8, ch_mult=(1, 1), attn_resolutions=(), n_embed=16)
QUICK = params().vqgan.fit.model_copy(
    update={
        "steps": 30,
        "batch_size": 16,
        "learning_rate": 2e-3,
        "decoder_only_fraction": 0.4,
        "log_every": 10,
        "save_every": 7,
    }
)


def seeded(architecture: Architecture, seed: int = 0) -> VQGAN:
    """A frozen VQGAN with fresh weights; the global random state stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vqgan = VQGAN(architecture)
        torch.nn.init.normal_(vqgan.codebook, std=0.5)
    return vqgan.eval().requires_grad_(False)


def blobs(count: int) -> Tensor:
    """Grey squares of four sizes and shades on black: uint8 [count, 3, 8, 8]."""
    random = torch.Generator().manual_seed(1)
    images = torch.zeros(count, 3, 8, 8, dtype=torch.uint8)
    for image in images:
        y, x, side, shade = torch.randint(4, (4,), generator=random).tolist()
        image[:, y : y + side + 1, x : x + side + 1] = 60 + 60 * shade
    return images
