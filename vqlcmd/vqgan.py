"""The frozen image tokenizer: images -> codebook indices -> images, in taming-transformers' layout of weights.

Shapes: B images, C channels, S pixels a side, D codebook dimensions, H and W the grid, N = H W tokens, K codes.
"""

import dataclasses
import math
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqlcmd.errors import ConfigError, DataError
from vqlcmd.weights import load_weights, save_weights

GROUPS = 32
SEARCH_ROWS = 4096


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What shapes a VQGAN: by default taming's vqgan_imagenet_f16_1024. ConfigError where its parts do not fit."""

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
        for name, value in dataclasses.asdict(self).items():
            numbers = value if name == "ch_mult" and value else [] if name == "attn_resolutions" else [value]
            if any(type(number) is not int or number < 1 for number in numbers):
                raise ConfigError(f"vqgan.{name} is {value!r}: whole numbers from 1 are needed; set it to such")
        if self.resolution % self.downsampling:
            rule = f"{len(self.ch_mult)} entries in vqgan.ch_mult need a multiple of {self.downsampling}"
            raise ConfigError(f"vqgan.resolution is {self.resolution}: {rule}; choose one, or fewer entries")
        if self.ch % GROUPS:
            raise ConfigError(
                f"vqgan.ch is {self.ch}: its {GROUPS} norm groups must divide it; choose a multiple of {GROUPS}"
            )
        if not 2 <= self.n_embed <= 65536:
            raise ConfigError(f"vqgan.n_embed is {self.n_embed}: tokens are 16-bit; choose a number from 2 to 65536")

    @property
    def downsampling(self) -> int:
        """Pixels a side per token."""
        return 2 ** (len(self.ch_mult) - 1)

    @property
    def grid(self) -> int:
        """Tokens a side at the configured resolution."""
        return self.resolution // self.downsampling


def in_order(**layers: nn.Module) -> nn.Sequential:
    """Layers that run in the order given; their names become keys of the state_dict."""
    return nn.Sequential(OrderedDict(layers))


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


def downsample(width: int) -> nn.Sequential:
    """Half the side: zeros on the right and at the bottom only, then a 3x3 convolution of stride 2."""
    return in_order(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=nn.Conv2d(width, width, 3, stride=2))


def upsample(width: int) -> nn.Sequential:
    """Twice the side: every pixel repeated, then a 3x3 convolution."""
    return in_order(repeat=nn.Upsample(scale_factor=2.0, mode="nearest"), conv=nn.Conv2d(width, width, 3, padding=1))


class Level(nn.Module):
    """The blocks of one resolution, each followed by attention where `attend`, then the way to the next one."""

    def __init__(self, width_in: int, width: int, blocks: int, attend: bool, **resize: nn.Module) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(width if j else width_in, width) for j in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(width) for _ in range(blocks if attend else 0))
        for name, module in resize.items():
            self.add_module(name, module)
        self.resize = tuple(resize)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        for j, block in enumerate(self.block):
            x_BCHW = block(x_BCHW)
            if self.attn:
                x_BCHW = self.attn[j](x_BCHW)
        for name in self.resize:
            x_BCHW = self.get_submodule(name)(x_BCHW)
        return x_BCHW


def middle(width: int) -> nn.Sequential:
    return in_order(block_1=ResnetBlock(width, width), attn_1=AttnBlock(width), block_2=ResnetBlock(width, width))


def encoder(a: Architecture) -> nn.Sequential:
    """Images [B, C, S, S] -> [B, z_channels, H, W]."""
    widths = [a.ch * mult for mult in a.ch_mult]
    levels = []
    for i, (width_in, width) in enumerate(zip([a.ch, *widths], widths, strict=False)):
        resize = {"downsample": downsample(width)} if i < len(widths) - 1 else {}
        levels.append(Level(width_in, width, a.num_res_blocks, a.resolution // 2**i in a.attn_resolutions, **resize))
    return in_order(
        conv_in=nn.Conv2d(a.in_channels, a.ch, 3, padding=1),
        down=nn.Sequential(*levels),
        mid=middle(widths[-1]),
        norm_out=norm(widths[-1]),
        swish=nn.SiLU(),
        conv_out=nn.Conv2d(widths[-1], a.z_channels, 3, padding=1),
    )


def decoder(a: Architecture) -> nn.Sequential:
    """[B, z_channels, H, W] -> images [B, C, S, S], not clamped. Level 0 is the finest and runs last."""
    widths = [a.ch * mult for mult in a.ch_mult]
    levels = {}
    for i, (width_in, width) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True)):
        resize = {"upsample": upsample(width)} if i else {}
        attend = a.resolution // 2**i in a.attn_resolutions
        levels[str(i)] = Level(width_in, width, a.num_res_blocks + 1, attend, **resize)
    return in_order(
        conv_in=nn.Conv2d(a.z_channels, widths[-1], 3, padding=1),
        mid=middle(widths[-1]),
        up=in_order(**dict(reversed(levels.items()))),
        norm_out=norm(widths[0]),
        swish=nn.SiLU(),
        conv_out=nn.Conv2d(widths[0], a.in_channels, 3, padding=1),
    )


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

    The side of an image may differ from `architecture.resolution` as long as `downsampling` divides it:
    attention stays at the levels where the configured resolution put it.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.encoder = encoder(architecture)
        self.decoder = decoder(architecture)
        self.quantize = Quantizer(architecture.n_embed, architecture.embed_dim)
        self.quant_conv = nn.Conv2d(architecture.z_channels, architecture.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(architecture.embed_dim, architecture.z_channels, 1)

    @property
    def codebook(self) -> Tensor:
        """[K, embed_dim]."""
        return self.quantize.embedding.weight

    def latents(self, images_BCSS: Tensor) -> Tensor:
        """What is quantised: float32 [B, embed_dim, H, W], also under autocast, since 16 bits change nearest codes."""
        height, width = images_BCSS.shape[2:]
        assert height == width, f"{height} x {width} is no square"
        assert width % self.architecture.downsampling == 0, f"{self.architecture.downsampling} does not divide {width}"
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
    """Float -1..1 to the nearest uint8; outside values clamp. Truncating would darken by half a grey level."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def save(vqgan: VQGAN, path: Path, provenance: Mapping[str, Any]) -> None:
    """One safetensors file, architecture and provenance in its header."""
    about = {"architecture": dataclasses.asdict(vqgan.architecture), "provenance": dict(provenance)}
    save_weights(path, "VQGAN", vqgan.state_dict(), about)


def load(path: Path, device: str | torch.device = "cpu") -> VQGAN:
    """The VQGAN of a file by `save`, in eval mode and without gradients. DataError where it is missing or damaged."""
    tensors, about = load_weights(path, "VQGAN", device)
    try:
        with torch.device("meta"):
            vqgan = VQGAN(Architecture(**about["architecture"]))
        vqgan.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: its weights and its architecture disagree ({reason}); make it again") from None
    return vqgan.eval().requires_grad_(False)
