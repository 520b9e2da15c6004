"""Encoder and decoder of a VQGAN: taming-transformers' arithmetic, and options for how other families differ.

Shapes: B images, C channels, S pixels a side, H and W a level's grid, N = H W positions.
"""

import dataclasses
from collections import OrderedDict
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vqlcmd.runtime.errors import ConfigError, shown_repr

MOST = {
    "resolution": 2**16,
    "ch": 2**14,
    "ch_mult": 64,
    "num_res_blocks": 64,
    "attn_resolutions": 2**16,
    "z_channels": 2**16,
    "embed_dim": 2**16,
    "n_embed": 2**16,
    "in_channels": 64,
    "groups": 2**14,
    "mid_blocks": 64,
    "extra_blocks": 64,
    "latent_kernel": 63,
    "merged": 2**16,
}
"""Upper limits far beyond any real tokenizer, so that a file which declares more cannot keep the machine busy."""
MOST_LEVELS = 14


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a VQGAN's arithmetic differs from taming's, which the defaults are. docs/tokenizers.md lists who differs."""

    groups: int = 32
    """Groups of every group normalisation."""
    mid_blocks: int = 2
    """Middle blocks: residual blocks on the coarsest level, at the encoder's end and at the decoder's start."""
    mid_attention: bool = True
    """Whether attention follows the first middle block."""
    extra_blocks: int = 1
    """Residual blocks of each decoder level in addition to `num_res_blocks`."""
    biases: bool = True
    """Whether the convolutions of residual blocks and the encoder's first convolution have biases."""
    pooled: bool = False
    """Whether the encoder downsamples by averaging four pixels instead of by a convolution."""
    shortcut: Literal["input", "output"] = "input"
    """What the 1x1 shortcut convolution of a residual block is applied to where the width changes: the block's input or
    its last convolution's output. With `output` the input is not added."""
    swish_out: bool = True
    """Whether a swish follows the last normalisation, before the last convolution."""
    latent_kernel: int = 3
    """Kernel size of the encoder's last convolution: odd."""
    quant_convs: bool = True
    """Whether there are 1x1 convolutions before and after the codebook. Without them z_channels must be embed_dim."""
    unit_codes: bool = False
    """Whether latents are divided by their norm before the nearest code is searched, and codes have norm 1."""
    gumbel: bool = False
    """Whether the code is the argmax of a 1x1 convolution of the latents instead of the nearest one."""
    unit_pixels: bool = False
    """Whether the network's own pixels are in [0, 1] instead of [-1, 1]."""
    tanh_out: bool = False
    """Whether a tanh follows the decoder's last convolution."""
    merged: int = 0
    """Number of tokens that codes are merged into, each decoded as the first of its codes; 0: every code is a token."""

    def __post_init__(self) -> None:
        for name, least in (("groups", 1), ("mid_blocks", 1), ("extra_blocks", 0), ("latent_kernel", 1), ("merged", 0)):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= MOST[name]:
                rule = f"a whole number from {least} to {MOST[name]} is needed"
                raise ConfigError(f"the tokenizer's {name} is {shown_repr(value)}: {rule}")
        for field in dataclasses.fields(self):
            if field.type is bool and type(getattr(self, field.name)) is not bool:
                value = shown_repr(getattr(self, field.name))
                raise ConfigError(f"the tokenizer's {field.name} is {value}: true or false is needed")
        if self.shortcut not in ("input", "output"):
            raise ConfigError(f"the tokenizer's shortcut is {shown_repr(self.shortcut)}: input or output is needed")
        if self.latent_kernel % 2 == 0:
            raise ConfigError(f"the tokenizer's latent_kernel is {self.latent_kernel}: an odd number is needed")


TAMING = Variant()


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The architecture of a VQGAN, by default taming's vqgan_imagenet_f16_1024. ConfigError for invalid values."""

    resolution: int = 256
    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    z_channels: int = 256
    embed_dim: int = 256
    n_embed: int = 1024
    in_channels: int = 3
    variant: Variant = TAMING

    def __post_init__(self) -> None:
        for name in ("ch_mult", "attn_resolutions"):
            value = getattr(self, name)
            if not isinstance(value, list | tuple) or len(value) > MOST_LEVELS:
                raise ConfigError(f"vqgan.{name} is {shown_repr(value)}: at most {MOST_LEVELS} numbers are needed")
            object.__setattr__(self, name, tuple(value))
        for name in (field.name for field in dataclasses.fields(self) if field.name != "variant"):
            value = getattr(self, name)
            numbers = value if name in ("ch_mult", "attn_resolutions") else [value]
            missing = name == "ch_mult" and not numbers
            if missing or any(type(number) is not int or number < 1 for number in numbers):
                raise ConfigError(
                    f"vqgan.{name} is {shown_repr(value)}: whole numbers from 1 are needed; set it to such"
                )
            if name != "n_embed" and any(number > MOST[name] for number in numbers):
                raise ConfigError(f"vqgan.{name} is {shown_repr(value)}: at most {MOST[name]} is supported; lower it")
        if self.resolution % self.downsampling:
            rule = f"{len(self.ch_mult)} entries in vqgan.ch_mult need a multiple of {self.downsampling}"
            raise ConfigError(f"vqgan.resolution is {self.resolution}: {rule}; choose one, or fewer entries")
        groups = self.variant.groups
        if self.ch % groups:
            raise ConfigError(
                f"vqgan.ch is {self.ch}: its {groups} norm groups must divide it; choose a multiple of {groups}"
            )
        if not 2 <= self.n_embed <= 65536:
            raise ConfigError(
                f"vqgan.n_embed is {shown_repr(self.n_embed)}: tokens are 16-bit; choose a number from 2 to 65536"
            )
        if self.variant.merged == 1 or self.variant.merged >= self.n_embed:
            rule = f"their number must be from 2 to {self.n_embed - 1}, below that of the codes"
            raise ConfigError(f"the tokenizer's codes are merged into {self.variant.merged} tokens: {rule}")
        if not self.variant.quant_convs and self.z_channels != self.embed_dim:
            rule = "must be equal where no convolution stands between them"
            raise ConfigError(f"vqgan.z_channels {self.z_channels} and vqgan.embed_dim {self.embed_dim} {rule}")

    @property
    def resnet_blocks(self) -> int:
        """Number of residual blocks in encoder and decoder."""
        levels = len(self.ch_mult)
        return levels * (2 * self.num_res_blocks + self.variant.extra_blocks) + 2 * self.variant.mid_blocks

    @property
    def downsampling(self) -> int:
        """Pixels per token along a side."""
        return 2 ** (len(self.ch_mult) - 1)

    @property
    def grid(self) -> int:
        """Tokens along a side at the configured resolution."""
        return self.resolution // self.downsampling


def in_order(**layers: nn.Module) -> nn.Sequential:
    """Layers that run in the order given; their names become keys of the state_dict."""
    return nn.Sequential(OrderedDict(layers))


class Affine(nn.Module):
    """scale x + shift, without weights."""

    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.shift


class Unit(nn.Module):
    """Every position's vector divided by its norm: [B, D, H, W]."""

    def forward(self, z_BDHW: Tensor) -> Tensor:
        return F.normalize(z_BDHW, dim=1)


class ResnetBlock(nn.Module):
    """x + conv(swish(norm(conv(swish(norm(x)))))), the first x through a 1x1 convolution where the width changes."""

    def __init__(self, width_in: int, width: int, v: Variant = TAMING) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(v.groups, width_in, eps=1e-6)
        self.conv1 = nn.Conv2d(width_in, width, 3, padding=1, bias=v.biases)
        self.norm2 = nn.GroupNorm(v.groups, width, eps=1e-6)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=v.biases)
        self.nin_shortcut = nn.Identity()
        self.cut_output = width_in != width and v.shortcut == "output"
        if width_in != width:
            self.nin_shortcut = nn.Conv2d(width if self.cut_output else width_in, width, 1, bias=v.biases)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BCHW = self.conv1(F.silu(self.norm1(x_BCHW)))
        h_BCHW = self.conv2(F.silu(self.norm2(h_BCHW)))
        return self.nin_shortcut(h_BCHW if self.cut_output else x_BCHW) + h_BCHW


class AttnBlock(nn.Module):
    """x + proj(softmax(q k^T / sqrt(C)) v): one head over all positions, after a normalisation."""

    def __init__(self, width: int, v: Variant = TAMING) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(v.groups, width, eps=1e-6)
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
    """Halves the side: zero padding on the right and at the bottom only, then a 3x3 convolution of stride 2."""
    return in_order(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=nn.Conv2d(width, width, 3, stride=2))


def upsample(width: int) -> nn.Sequential:
    """Doubles the side: nearest-neighbour upsampling, then a 3x3 convolution."""
    return in_order(repeat=nn.Upsample(scale_factor=2.0, mode="nearest"), conv=nn.Conv2d(width, width, 3, padding=1))


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention if `attend`, then the modules in `resize`."""

    def __init__(self, widths: tuple[int, int], blocks: int, attend: bool, v: Variant, **resize: nn.Module) -> None:
        super().__init__()
        width_in, width = widths
        self.block = nn.ModuleList(ResnetBlock(width if j else width_in, width, v) for j in range(blocks))
        self.attn = nn.ModuleList(AttnBlock(width, v) for _ in range(blocks if attend else 0))
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


def middle(width: int, v: Variant) -> nn.Sequential:
    layers: dict[str, nn.Module] = {}
    for number in range(1, v.mid_blocks + 1):
        layers[f"block_{number}"] = ResnetBlock(width, width, v)
        if number == 1 and v.mid_attention:
            layers["attn_1"] = AttnBlock(width, v)
    return in_order(**layers)


def encoder(a: Architecture) -> nn.Sequential:
    """Images [B, C, S, S] in [-1, 1] -> [B, z_channels, H, W]."""
    v, widths = a.variant, [a.ch * mult for mult in a.ch_mult]
    levels = []
    for i, pair in enumerate(zip([a.ch, *widths], widths, strict=False)):
        resize = {}
        if i < len(widths) - 1:
            resize = {"downsample": nn.AvgPool2d(2) if v.pooled else downsample(pair[1])}
        levels.append(Level(pair, a.num_res_blocks, a.resolution // 2**i in a.attn_resolutions, v, **resize))
    return in_order(
        **({"pixels": Affine(0.5, 0.5)} if v.unit_pixels else {}),
        conv_in=nn.Conv2d(a.in_channels, a.ch, 3, padding=1, bias=v.biases),
        down=nn.Sequential(*levels),
        mid=middle(widths[-1], v),
        norm_out=nn.GroupNorm(v.groups, widths[-1], eps=1e-6),
        swish=nn.SiLU() if v.swish_out else nn.Identity(),
        conv_out=nn.Conv2d(widths[-1], a.z_channels, v.latent_kernel, padding=v.latent_kernel // 2),
    )


def decoder(a: Architecture) -> nn.Sequential:
    """[B, z_channels, H, W] -> images [B, C, S, S], -1 to 1 but not clamped. Level 0 is the finest and runs last."""
    v, widths = a.variant, [a.ch * mult for mult in a.ch_mult]
    levels = {}
    for i, pair in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True)):
        resize = {"upsample": upsample(pair[1])} if i else {}
        attend = a.resolution // 2**i in a.attn_resolutions
        levels[str(i)] = Level(pair, a.num_res_blocks + v.extra_blocks, attend, v, **resize)
    return in_order(
        conv_in=nn.Conv2d(a.z_channels, widths[-1], 3, padding=1),
        mid=middle(widths[-1], v),
        up=in_order(**dict(reversed(levels.items()))),
        norm_out=nn.GroupNorm(v.groups, widths[0], eps=1e-6),
        swish=nn.SiLU() if v.swish_out else nn.Identity(),
        conv_out=nn.Conv2d(widths[0], a.in_channels, 3, padding=1),
        **({"tanh": nn.Tanh()} if v.tanh_out else {}),
        **({"pixels": Affine(2.0, -1.0)} if v.unit_pixels else {}),
    )
