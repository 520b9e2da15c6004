"""The frozen image tokenizer: images -> codebook indices -> images, with keys named as in taming-transformers.

Shapes: B images, C channels, S pixels a side, D codebook dimensions, H and W the grid, N = H W tokens, K codes.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqlcmd.precision import FLOAT32, computing
from vqlcmd.runtime.errors import ConfigError, DataError, shown
from vqlcmd.runtime.machine import autocast
from vqlcmd.runtime.safetensors_file import load_weights, save_weights
from vqlcmd.tokenizer.blocks import TAMING, Architecture, Unit, Variant, decoder, encoder

SEARCH_ROWS = 4096
MERGE = "merge.table"
"""Name of the only integer tensor."""
TENSORS_A_BLOCK = 6
"""Least number of tensors in a residual block: two norms, and two convolutions without biases."""


class Quantizer(nn.Module):
    """The codebook, a row of D numbers per code."""

    def __init__(self, codes: int, dimensions: int) -> None:
        super().__init__()
        weight = torch.empty(codes, dimensions)
        if not weight.is_meta:
            # nn.Embedding's own draw, without which the random state of a fit would differ. Skipped where weights are
            # loaded: normal_ on the meta device imports torch._dynamo, which takes a second.
            nn.init.normal_(weight)
        self.embedding = nn.Embedding.from_pretrained(nn.init.uniform_(weight, -1 / codes, 1 / codes), freeze=False)

    def tokens(self, z_BDHW: Tensor) -> Tensor:
        """The codes of latents: int64 [B, N], row by row."""
        return self.nearest(z_BDHW)

    def nearest(self, z_BDHW: Tensor) -> Tensor:
        """argmin_k |z|^2 + |e_k|^2 - 2 z.e_k, the first k where several are minimal: int64 [B, N], row by row."""
        e_KD = self.embedding.weight
        z_RD = z_BDHW.permute(0, 2, 3, 1).reshape(-1, z_BDHW.shape[1])
        norms_K = e_KD.square().sum(dim=1)
        # In pieces: all distances of one batch of 256 px images to 16,384 codes would take gigabytes.
        nearest = [
            (part.square().sum(dim=1, keepdim=True) + norms_K - 2 * part @ e_KD.T).argmin(dim=1)
            for part in z_RD.split(SEARCH_ROWS)
        ]
        return torch.cat(nearest).view(len(z_BDHW), -1)

    def lookup(self, indices_BN: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Vectors of codes [B, N] on their grid, by default a square one: [B, D, H, W]."""
        batch, tokens = indices_BN.shape
        rows, columns = grid or (math.isqrt(tokens),) * 2
        assert rows * columns == tokens, f"{tokens} tokens do not form {rows} x {columns}"
        return self.embedding(indices_BN).transpose(1, 2).reshape(batch, -1, rows, columns)


class GumbelQuantizer(Quantizer):
    """A codebook whose code is argmax_k (W z + b)_k, without the Gumbel noise used in training."""

    def __init__(self, codes: int, dimensions: int) -> None:
        super().__init__(codes, dimensions)
        self.proj = nn.Conv2d(dimensions, codes, 1)

    def tokens(self, z_BDHW: Tensor) -> Tensor:
        """argmax_k (W z + b)_k: int64 [B, N]."""
        return self.proj(z_BDHW).argmax(dim=1).flatten(1)


class Merge(nn.Module):
    """Maps codes to fewer tokens and back: `table` has the token of each code; a token is decoded as its first code."""

    def __init__(self, codes: int, tokens: int) -> None:
        super().__init__()
        self.count = tokens
        self.register_buffer("table", torch.zeros(codes, dtype=torch.int64))
        self.table: Tensor

    def tokens(self, codes: Tensor) -> Tensor:
        """The tokens of codes, of any shape."""
        return self.table[codes]

    def codes(self, tokens: Tensor) -> Tensor:
        """The first codes of tokens, of any shape."""
        return self.first[tokens]

    @property
    def first(self) -> Tensor:
        """The first code of each token, int64 [tokens]; the number of codes for a token without any."""
        places = torch.arange(len(self.table), device=self.table.device)
        none = places.new_full((self.count,), len(self.table))
        return none.scatter_reduce(0, self.table, places, "amin")

    def raise_if_wrong(self) -> None:
        """DataError where the table has a token that is out of range, or a token has no code."""
        least, most = int(self.table.min()), int(self.table.max())
        if least < 0 or most >= self.count or bool((self.first == len(self.table)).any()):
            raise DataError(f"merge.table is no table of its codes' {self.count} tokens: make it again")


class VQGAN(nn.Module):
    """Maps images in [-1, 1] to tokens and back. Keys of the state_dict are those of taming-transformers.

    The sides of an image may differ from `architecture.resolution` as long as `downsampling` divides them:
    attention stays at the levels where the configured resolution put it.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture, variant = architecture, architecture.variant
        self.encoder = encoder(architecture)
        self.decoder = decoder(architecture)
        quantizer = GumbelQuantizer if variant.gumbel else Quantizer
        self.quantize = quantizer(architecture.n_embed, architecture.embed_dim)
        self.quant_conv, self.post_quant_conv = nn.Identity(), nn.Identity()
        if variant.quant_convs:
            self.quant_conv = nn.Conv2d(architecture.z_channels, architecture.embed_dim, 1)
            self.post_quant_conv = nn.Conv2d(architecture.embed_dim, architecture.z_channels, 1)
        self.unit = Unit() if variant.unit_codes else nn.Identity()
        self.merge = Merge(architecture.n_embed, variant.merged) if variant.merged else None

    @property
    def codebook(self) -> Tensor:
        """The vectors that tokens are decoded as: [K, embed_dim]."""
        weight = self.quantize.embedding.weight
        return weight if self.merge is None else weight[self.merge.first]

    @property
    def codes(self) -> int:
        """K, the number of tokens."""
        return self.architecture.variant.merged or self.architecture.n_embed

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the tokens of a height x width image. ConfigError unless `downsampling` divides both."""
        factor = self.architecture.downsampling
        if height % factor or width % factor:
            raise ConfigError(
                f"images have {height} x {width} pixels, which must be multiples of {factor} for this tokenizer:"
                " set images.size to one"
            )
        return height // factor, width // factor

    def latents(self, images_BCSS: Tensor) -> Tensor:
        """Latents to be quantised, float32 [B, embed_dim, H, W], also under autocast: 16 bits change nearest codes."""
        with autocast(images_BCSS.device.type, enabled=False):
            return self._latents(images_BCSS)

    def decode_latents(self, z_BDHW: Tensor) -> Tensor:
        """Images [B, C, S, S] from vectors of codes, or from latents; not clamped, differentiable."""
        return self.decoder(self.post_quant_conv(z_BDHW))

    @torch.no_grad()
    def encode(self, images_BCSS: Tensor, precision: str = FLOAT32) -> Tensor:
        """Images in [-1, 1] to tokens: int64 [B, N], row by row from the top left.

        `precision` is the encoder's; the nearest code is searched in float32.
        """
        with computing(precision, images_BCSS.device):
            z_BDHW = self._latents(images_BCSS).float()
        with computing(FLOAT32, images_BCSS.device):
            codes_BN = self.quantize.tokens(z_BDHW)
            return codes_BN if self.merge is None else self.merge.tokens(codes_BN)

    @torch.no_grad()
    def decode(self, indices_BN: Tensor, grid: tuple[int, int] | None = None, precision: str = FLOAT32) -> Tensor:
        """Tokens [B, N] on a grid, by default a square one, to images float32 [B, C, S, S], clamped to [-1, 1]."""
        codes_BN = indices_BN if self.merge is None else self.merge.codes(indices_BN)
        with computing(precision, indices_BN.device):
            return self.decode_latents(self.quantize.lookup(codes_BN, grid)).float().clamp(-1, 1)

    def _latents(self, images_BCSS: Tensor) -> Tensor:
        factor, (height, width) = self.architecture.downsampling, images_BCSS.shape[2:]
        assert height % factor == width % factor == 0, f"{factor} does not divide {height} x {width}"
        return self.unit(self.quant_conv(self.encoder(images_BCSS.float())))


def save(vqgan: VQGAN, path: Path, provenance: Mapping[str, Any]) -> None:
    """Write one safetensors file, with architecture and provenance in its header."""
    about = {"architecture": _described(vqgan.architecture), "provenance": dict(provenance)}
    save_weights(path, "VQGAN", vqgan.state_dict(), about)


def load(path: Path, device: str | torch.device = "cpu") -> VQGAN:
    """The VQGAN in a file by `save`, in eval mode and without gradients. DataError where it is missing or damaged.

    Weights in half precision, as in `presets/emoji_tokenizer.safetensors`, are converted to float32.
    """
    tensors, about = load_weights(path, "VQGAN", device)
    tensors = {name: each.float() if each.dtype == torch.float16 else each for name, each in tensors.items()}
    try:
        described = dict(about["architecture"])
        variant = Variant(**described.pop("variant", {}))
        vqgan = build(Architecture(**described, variant=variant), tensors)
    except (KeyError, TypeError, ValueError, RuntimeError, ConfigError, DataError) as error:
        raise DataError(
            f"{path}: its weights and its architecture disagree ({shown(error, 200)}); make it again"
        ) from None
    return vqgan


def build(architecture: Architecture, tensors: Mapping[str, Tensor]) -> VQGAN:
    """A VQGAN with the weights `tensors`, in eval mode and without gradients.

    DataError or RuntimeError where they do not fit. How long building takes depends on the architecture, not on the
    weights, so the number of tensors is checked first.
    """
    raise_if_too_few(architecture, len(tensors))
    for name, tensor in tensors.items():
        kind = torch.int64 if name == MERGE else torch.float32
        if tensor.dtype != kind:
            raise DataError(f"{shown(name)} is {tensor.dtype}, not {str(kind).removeprefix('torch.')}")
    with torch.device("meta"):
        vqgan = VQGAN(architecture)
    vqgan.load_state_dict(tensors, assign=True)
    if vqgan.merge is not None:
        vqgan.merge.raise_if_wrong()
    return vqgan.eval().requires_grad_(False)


def raise_if_too_few(architecture: Architecture, tensors: int) -> None:
    """DataError where an architecture has more residual blocks than `tensors` tensors can hold the weights of."""
    if TENSORS_A_BLOCK * architecture.resnet_blocks > tensors:
        blocks = f"{architecture.resnet_blocks} residual blocks"
        raise DataError(f"{blocks} take {TENSORS_A_BLOCK} tensors each, and there are {tensors} in all")


def _described(architecture: Architecture) -> dict[str, Any]:
    # Only those options of the variant that differ from taming's, so that files of plain VQGANs are the same as before.
    described = dataclasses.asdict(architecture)
    departs = {name: value for name, value in described.pop("variant").items() if value != getattr(TAMING, name)}
    return described | ({"variant": departs} if departs else {})
