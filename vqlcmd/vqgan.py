"""The frozen image tokenizer: images -> codebook indices -> images, in taming-transformers' layout of weights.

Shapes: B images, C channels, S pixels a side, D codebook dimensions, H and W the grid, N = H W tokens, K codes.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqlcmd.errors import ConfigError, DataError

GROUPS = 32
SEARCH_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What shapes a VQGAN; the defaults are taming's vqgan_imagenet_f16_1024. ConfigError where the parts do not fit."""

    resolution: int = 256
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    z_channels: int = 256
    embed_dim: int = 256
    n_embed: int = 1024
    in_channels: int = 3

    def __post_init__(self) -> None:
        for name in ("ch_mult", "attn_resolutions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        counts = dataclasses.asdict(self) | {f"ch_mult[{i}]": mult for i, mult in enumerate(self.ch_mult)}
        for name in ("ch_mult", "attn_resolutions"):
            del counts[name]
        for name, value in counts.items():
            if type(value) is not int or value < 1:
                raise ConfigError(f"vqgan.{name} is {value!r}: it must be a whole number of at least 1; set it to one")
        if not self.ch_mult:
            raise ConfigError("vqgan.ch_mult is empty: it needs one multiplier per resolution level; give at least one")
        if self.resolution % self.downsampling:
            raise ConfigError(
                f"vqgan.resolution is {self.resolution}: it must be divisible by {self.downsampling}, 2 to the number "
                f"of levels less one; choose a multiple, or fewer entries in vqgan.ch_mult"
            )
        for mult in self.ch_mult:
            if self.ch * mult % GROUPS:
                raise ConfigError(
                    f"vqgan.ch is {self.ch}: times {mult} of vqgan.ch_mult it must be divisible by the {GROUPS} groups "
                    f"of the normalisation; choose vqgan.ch as a multiple of {GROUPS}"
                )
        if not 2 <= self.n_embed <= 65536:
            raise ConfigError(
                f"vqgan.n_embed is {self.n_embed}: it must be from 2 to 65536, as tokens are stored in 16 bits; choose such a number"
            )

    @property
    def downsampling(self) -> int:
        """Pixels a side per token."""
        return 2 ** (len(self.ch_mult) - 1)

    @property
    def grid(self) -> int:
        """Tokens a side at the configured resolution."""
        return self.resolution // self.downsampling


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))), the first x through a 1x1 convolution where the width changes."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.norm1 = norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1)
        self.norm2 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW = self.conv1(F.silu(self.norm1(x_BCHW)))
        h_BCHW = self.conv2(F.silu(self.norm2(h_BCHW)))
        return self.nin_shortcut(x_BCHW) + h_BCHW


class AttnBlock(nn.Module):
    """x + proj(softmax(q k^T / sqrt(C)) v): one head over all positions, after a normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW = self.norm(x_BCHW)
        q_BNC, k_BNC, v_BNC = (part(h_BCHW).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed_BNC = F.scaled_dot_product_attention(q_BNC[:, None], k_BNC[:, None], v_BNC[:, None])[:, 0]
        return x_BCHW + self.proj_out(mixed_BNC.transpose(1, 2).reshape(x_BCHW.shape))


class Downsample(nn.Module):
    """Half the side: zeros on the right and at the bottom only, then a 3x3 convolution of stride 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.pad(x_BCHW, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the side: every pixel repeated, then a 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.conv(F.interpolate(x_BCHW, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution, each followed by attention where `attend`; the width changes in the first."""

    def __init__(self, width_in: int, width: int, blocks: int, attend: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(width if j else width_in, width) for j in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(width) for _ in range(blocks if attend else 0))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for j, block in enumerate(self.block):
            x_BCHW = block(x_BCHW)
            if self.attn:
                x_BCHW = self.attn[j](x_BCHW)
        return x_BCHW


class Middle(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(width, width)
        self.attn_1 = AttnBlock(width)
        self.block_2 = ResnetBlock(width, width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x_BCHW)))


class Encoder(nn.Module):
    """Images [B, C, S, S] -> [B, z_channels, H, W]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        widths = [a.ch * mult for mult in a.ch_mult]
        self.conv_in = nn.Conv2d(a.in_channels, a.ch, 3, padding=1)
        self.down = nn.ModuleList()
        for i, width in enumerate(widths):
            attend = a.resolution // 2**i in a.attn_resolutions
            level = Level(widths[i - 1] if i else a.ch, width, a.num_res_blocks, attend)
            if i < len(widths) - 1:
                level.downsample = Downsample(width)
            self.down.append(level)
        self.mid = Middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], a.z_channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.conv_in(x_BCHW)
        for level in self.down:
            x_BCHW = level(x_BCHW)
            if hasattr(level, "downsample"):
                x_BCHW = level.downsample(x_BCHW)
        return self.conv_out(F.silu(self.norm_out(self.mid(x_BCHW))))


class Decoder(nn.Module):
    """[B, z_channels, H, W] -> images [B, C, S, S], not clamped. Level 0 is the finest and runs last."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        widths = [a.ch * mult for mult in a.ch_mult]
        self.conv_in = nn.Conv2d(a.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList()
        for i, width in enumerate(widths):
            attend = a.resolution // 2**i in a.attn_resolutions
            level = Level(widths[min(i + 1, len(widths) - 1)], width, a.num_res_blocks + 1, attend)
            if i:
                level.upsample = Upsample(width)
            self.up.append(level)
        self.norm_out = norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], a.in_channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.mid(self.conv_in(x_BCHW))
        for level in reversed(self.up):
            x_BCHW = level(x_BCHW)
            if hasattr(level, "upsample"):
                x_BCHW = level.upsample(x_BCHW)
        return self.conv_out(F.silu(self.norm_out(x_BCHW)))


class Quantizer(nn.Module):
    """The codebook, a row of D numbers per code."""

    def __init__(self, codes: int, dimensions: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, dimensions)
        nn.init.uniform_(self.embedding.weight, -1 / codes, 1 / codes)

    def nearest(self, z_BDHW: Tensor) -> Tensor:
        """argmin_k |z|^2 + |e_k|^2 - 2 z.e_k, the first where several are least: int64 [B, N], row by row."""
        e_KD = self.embedding.weight
        z_RD = z_BDHW.permute(0, 2, 3, 1).reshape(-1, z_BDHW.shape[1])
        norms_K = e_KD.square().sum(dim=1)
        # In pieces: all distances of one batch of 256 px images to 16,384 codes would take gigabytes.
        nearest = [
            (part.square().sum(dim=1, keepdim=True) + norms_K - 2 * part @ e_KD.T).argmin(dim=1)
            for part in z_RD.split(SEARCH_ROWS)
        ]
        return torch.cat(nearest).view(len(z_BDHW), -1)

    def lookup(self, indices_BN: Tensor) -> Tensor:
        """Codes on their square grid: [B, D, H, W]."""
        batch, tokens = indices_BN.shape
        side = math.isqrt(tokens)
        assert side * side == tokens, f"{tokens} tokens do not form a square"
        return self.embedding(indices_BN).transpose(1, 2).reshape(batch, -1, side, side)


class VQGAN(nn.Module):
    """Images in [-1, 1] to tokens and back. Keys of the state_dict and arithmetic are those of taming-transformers.

    Images may be larger or smaller than `architecture.resolution`, with a side divisible by its downsampling:
    attention stays at the levels where the configured resolution put it.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a = architecture
        self.architecture = a
        self.encoder = Encoder(a)
        self.decoder = Decoder(a)
        self.quantize = Quantizer(a.n_embed, a.embed_dim)
        self.quant_conv = nn.Conv2d(a.z_channels, a.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(a.embed_dim, a.z_channels, 1)

    @property
    def codebook(self) -> Tensor:
        """[K, embed_dim]."""
        return self.quantize.embedding.weight

    def latents(self, images_BCSS: Tensor) -> Tensor:
        """What is quantised: float32 [B, embed_dim, H, W], also under autocast, since 16 bits change nearest codes."""
        side, factor = images_BCSS.shape[-1], self.architecture.downsampling
        assert images_BCSS.shape[-2] == side and side % factor == 0, f"{tuple(images_BCSS.shape)} is no square of {factor}s"
        with torch.autocast(images_BCSS.device.type, enabled=False):
            return self.quant_conv(self.encoder(images_BCSS.float()))

    def paint(self, z_BDHW: Tensor) -> Tensor:
        """Codes, or latents, to images [B, C, S, S], not clamped; gradients pass."""
        return self.decoder(self.post_quant_conv(z_BDHW))

    @torch.no_grad()
    def encode(self, images_BCSS: Tensor) -> Tensor:
        """Images in [-1, 1] to the indices of their nearest codes: int64 [B, N], row by row from the top left."""
        z_BDHW = self.latents(images_BCSS)
        with torch.autocast(z_BDHW.device.type, enabled=False):
            return self.quantize.nearest(z_BDHW)

    @torch.no_grad()
    def decode(self, indices_BN: Tensor) -> Tensor:
        """Indices [B, N] to images float32 [B, C, S, S], clamped to [-1, 1]."""
        return self.paint(self.quantize.lookup(indices_BN)).float().clamp(-1, 1)


def to_float(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float32 -1..1."""
    return pixels.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Float -1..1 to the nearest uint8; outside values clamp. Cutting decimals off would darken by half a grey level."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def save(vqgan: VQGAN, path: str | os.PathLike[str], provenance: Mapping[str, Any]) -> None:
    """One safetensors file with architecture and provenance in its header; whole or absent; equal input, equal bytes."""
    path = Path(path)
    header = {"architecture": dataclasses.asdict(vqgan.architecture), "provenance": dict(provenance)}
    # One key only: safetensors writes several in an order that changes from call to call.
    metadata = {"vqgan": json.dumps(header, sort_keys=True)}
    tensors = {key: value.detach().cpu().contiguous() for key, value in vqgan.state_dict().items()}
    side_file = path.with_name(path.name + ".part")
    with open(side_file, "wb") as stream:
        stream.write(safetensors.torch.save(tensors, metadata))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(side_file, path)


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> VQGAN:
    """The VQGAN of a file by `save`, in eval mode and without gradients. DataError where it is missing or damaged."""
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; run the vqgan stage to make it")
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads(file.metadata()["vqgan"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is no mapping)
        with torch.device("meta"):
            vqgan = VQGAN(Architecture(**header["architecture"]))
        vqgan.load_state_dict(tensors, assign=True)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not a whole VQGAN file ({type(error).__name__}: {reason}); make it again") from error
    return vqgan.to(device).eval().requires_grad_(False)
