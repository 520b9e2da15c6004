"""Memory for training a tokenizer, counted on tensors without numbers, and a one-line error if there is less.

Shapes: R latents, K codes.
"""

import torch
from torch import Tensor, nn

from vqlcmd.costs import available
from vqlcmd.costs.available import FLOAT, gigabytes, require_images
from vqlcmd.params.vqgan import VqganFit
from vqlcmd.runtime import distributed
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.tokenizer.blocks import Architecture
from vqlcmd.tokenizer.vqgan import VQGAN
from vqlcmd.tokenizer_fit.codebook import ROWS_PER_CODE

PAIR_BYTES = 12
"""For each pair of a latent and a code in k-means: whether they belong together, as int64 and as float32."""


def build(shape: Architecture) -> VQGAN:
    """The tokenizer without numbers. Raises ConfigError if it has more bytes than 64 bits can count."""
    try:
        with torch.device("meta"):
            return VQGAN(shape)
    except RuntimeError as error:
        raise too_large(error) from None


def activations(tokenizer: VQGAN, size: int) -> int:
    """The least bytes that gradients of one image of `size` x `size` pixels need: inputs of layers with weights."""
    entered: dict[int, Tensor] = {}

    def look(_: object, given: tuple[Tensor, ...], __: object) -> None:
        # Kept, so that no later tensor has the same id.
        entered[id(given[0])] = given[0]

    hooks = [
        layer.register_forward_hook(look)
        for layer in tokenizer.modules()
        if isinstance(layer, nn.Conv2d | nn.GroupNorm)
    ]
    try:
        with torch.device("meta"), torch.no_grad():
            image = torch.empty(1, tokenizer.architecture.in_channels, size, size)
            tokenizer.decode_latents(tokenizer.latents(image))
    except RuntimeError as error:
        raise too_large(error) from None
    finally:
        for hook in hooks:
            hook.remove()
    return sum(tensor.nbytes for tensor in entered.values())


def require_fit(shape: Architecture, settings: VqganFit, size: int, images: int, device: torch.device) -> None:
    """Raises ConfigError if training on `images` of `size` x `size` pixels cannot fit into the free memory."""
    tokenizer = build(shape)
    # Weights, gradients and two moments. K-means runs between two steps, when no activations are kept.
    fixed = 4 * FLOAT * sum(each.numel() for each in tokenizer.parameters())
    latents = min(images * (size // shape.downsampling) ** 2, ROWS_PER_CODE * shape.n_embed)
    search, free = PAIR_BYTES * latents * shape.n_embed, available.free_memory(device)
    if fixed + search > free >= fixed:
        raise ConfigError(
            f"k-means of {latents:,} latents and {shape.n_embed:,} codes takes at least {gigabytes(search)}; "
            f"{gigabytes(free - fixed)} are free beside the VQGAN: lower vqgan.n_embed"
        )
    # A lower bound: bf16 may halve the activations.
    each = activations(tokenizer, size) // (2 if settings.precision == "bf16" else 1)
    at_once = max(settings.batch_size // distributed.world(), 1)
    require_images("fitting the VQGAN", "vqgan.fit.batch_size", fixed, each, at_once, device)


def too_large(error: RuntimeError) -> ConfigError:
    """The error for a tokenizer that is too large even as tensors without memory."""
    reason = str(error).splitlines()[0][:100]
    return ConfigError(f"the tokenizer is larger than any memory: lower vqgan.ch or vqgan.ch_mult ({reason})")
