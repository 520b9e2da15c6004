"""What a pass through the networks costs, in FLOPs: closed forms, and what each method makes of them.

An operation is one multiplication or one addition, and those of matrix products and convolutions are counted: the rest
is little beside them. Shapes: N tokens, D embedding size, W width, K codes.
"""

from dataclasses import dataclass

from vqlcmd.diffusion.consistency import STEPS
from vqlcmd.params import Params
from vqlcmd.tokenizer.blocks import Architecture


@dataclass(frozen=True)
class Sizes:
    """What shapes the network: N, K, D, classes that the model sees, layers, heads, W."""

    tokens: int
    codes: int
    inputs: int
    classes: int
    layers: int
    heads: int
    width: int

    @property
    def per_token(self) -> int:
        """Operations of a pass that every token costs: the linear layers."""
        return 2 * self.inputs * self.width + self.layers * 24 * self.width**2 + 2 * self.width * self.codes

    @property
    def modulation(self) -> int:
        """Operations of a pass that AdaLN costs on one condition, once an image."""
        return self.layers * 4 * self.width**2

    @property
    def once(self) -> int:
        """Operations of a pass that do not grow with its tokens: AdaLN on time and, where there are any, on classes."""
        return self.modulation * (2 if self.classes else 1)

    def attention(self, pairs: int) -> int:
        """Operations for so many pairs of a query and a key: their product, and the weighted sum."""
        return self.layers * 4 * self.width * pairs

    @property
    def forward(self) -> int:
        """Operations of one pass of N tokens."""
        return self.tokens * self.per_token + self.once + self.attention(self.tokens**2)

    @property
    def trained(self) -> int:
        """Operations of a pass and its gradients: three passes, less the gradient of the time, which nothing needs."""
        return 3 * self.forward - self.modulation

    @property
    def expectation(self) -> int:
        """Operations of psi_hat, equation 2."""
        return 2 * self.tokens * self.codes * self.inputs


class Costs:
    """Operations an image of a method that looks once at an image in training, and once a step in sampling."""

    students = 1
    """Passes with gradients in training."""

    def __init__(self, params: Params, sizes: Sizes):
        self.params, self.sizes = params, sizes

    def training(self) -> int:
        return self.sizes.trained

    def sampling(self, calls: int) -> int:
        return calls * self.sizes.forward

    def bound(self) -> int:
        return self.params.bound.levels * self.sizes.forward


class LCMDCosts(Costs):
    """VQ-LCMD: the student at two times, the teacher at one or two more, and the expected embedding of each answer."""

    def __init__(self, params: Params, sizes: Sizes):
        super().__init__(params, sizes)
        self.students = 2 if params.lambda_rec else 1

    def training(self) -> int:
        total = self.students * self.sizes.trained
        if self.params.lambda_diff:
            total += 3 * self.sizes.expectation
        if self.params.lambda_cm:
            back = STEPS[self.params.consistency_step].passes
            total += (1 + back) * self.sizes.forward + back * self.sizes.expectation
        return total

    def sampling(self, calls: int) -> int:
        return super().sampling(calls) + self.params.sample_steps * self.sizes.expectation

    def bound(self) -> int:
        levels = self.params.bound.levels
        return (levels + 1) * self.sizes.forward + levels * self.sizes.expectation


class AutoregressiveCosts(Costs):
    """Token by token in sampling, with the keys and values of those before; the bound is one pass."""

    def sampling(self, calls: int) -> int:
        sizes = self.sizes
        pairs = sizes.tokens * (sizes.tokens + 1) // 2
        return calls * (sizes.per_token + sizes.once) + calls // sizes.tokens * sizes.attention(pairs)

    def bound(self) -> int:
        return self.sizes.forward


COSTS: dict[str, type[Costs]] = {"lcmd": LCMDCosts, "autoregressive": AutoregressiveCosts}
"""Of the methods that do not cost what Costs says."""


def tokenizer_flops(a: Architecture, size: int) -> tuple[int, int]:
    """Operations to encode and to decode an image of `size` pixels a side."""
    v, widths = a.variant, [a.ch * mult for mult in a.ch_mult]
    last, side, coarsest = widths[-1], size // a.downsampling, len(widths) - 1

    def conv(width_in: int, width: int, kernel: int, side: int) -> int:
        return 2 * width_in * width * kernel**2 * side**2

    def residual(width_in: int, width: int, side: int) -> int:
        cut = width if v.shortcut == "output" else width_in
        shortcut = conv(cut, width, 1, side) if width_in != width else 0
        return conv(width_in, width, 3, side) + conv(width, width, 3, side) + shortcut

    def attend(width: int, side: int) -> int:
        return 4 * conv(width, width, 1, side) + 4 * width * side**4

    def level(i: int, width_in: int, blocks: int) -> int:
        attended = blocks * attend(widths[i], size >> i) if a.resolution >> i in a.attn_resolutions else 0
        inner = (blocks - 1) * residual(widths[i], widths[i], size >> i)
        return residual(width_in, widths[i], size >> i) + inner + attended

    middle = v.mid_blocks * residual(last, last, side) + (attend(last, side) if v.mid_attention else 0)
    encode = conv(a.in_channels, a.ch, 3, size) + middle + conv(last, a.z_channels, v.latent_kernel, side)
    encode += 2 * side**2 * a.n_embed * a.embed_dim
    decode = conv(a.z_channels, last, 3, side) + middle + conv(widths[0], a.in_channels, 3, size)
    for i, width in enumerate(widths):
        encode += level(i, widths[i - 1] if i else a.ch, a.num_res_blocks)
        encode += conv(width, width, 3, size >> (i + 1)) if i < coarsest and not v.pooled else 0
        decode += level(i, widths[i + 1] if i < coarsest else last, a.num_res_blocks + v.extra_blocks)
        decode += conv(width, width, 3, size >> (i - 1)) if i else 0
    if v.quant_convs:
        encode += conv(a.z_channels, a.embed_dim, 1, side)
        decode += conv(a.embed_dim, a.z_channels, 1, side)
    return encode, decode
