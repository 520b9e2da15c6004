"""VQGANs of other projects written down a second time, plainly, from descriptions of their files and arithmetic.

Nothing of vqlcmd is used. A model makes its random weights when it first asks for them by name, so that the names and
shapes of a file come from here too. All of them: 16 x 16 pixels, three levels, 4 x 4 tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

CH, MULT, CODES = 32, (1, 2, 1), 24


class Weights:
    """Random tensors, made once."""

    def __init__(self, seed: int = 0) -> None:
        self.held: dict[str, Tensor] = {}
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, name: str, *shape: int) -> Tensor:
        if name not in self.held:
            drawn = torch.randn(shape, generator=self.random)
            if len(shape) > 1:
                self.held[name] = drawn / torch.Size(shape[1:]).numel() ** 0.5
            else:
                self.held[name] = 0.2 * drawn + (1 if name.endswith("weight") else 0)
        assert self.held[name].shape == shape, name
        return self.held[name]


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


class Model:
    """What the families share, and the taming family itself."""

    pixels = (-1.0, 1.0)
    dim, latent = 6, 10
    attend: tuple[int, ...] = (1,)
    mid_attention = True
    unit = False
    up = staticmethod(lambda i: i)
    res, attn, cut = "{side}.{way}.{i}.block.{j}", "{side}.{way}.{i}.attn.{j}", "nin_shortcut"
    down_conv, up_conv = "encoder.down.{i}.downsample.conv", "decoder.up.{i}.upsample.conv"
    mids = ("{side}.mid.block_1", "{side}.mid.attn_1", "{side}.mid.block_2")
    end = "{side}.norm_out"
    parts = ("norm", "q", "k", "v", "proj_out")
    flat_attention = False
    blocks = 2

    def __init__(self, seed: int = 0) -> None:
        self.w = Weights(seed)
        # Codes are latents of noise, so that different ones are near to different images.
        z = self.encoder(torch.randn(4, 3, 16, 16, generator=self.w.random)).permute(0, 2, 3, 1).reshape(-1, self.dim)
        self.w.held["quantize.embedding.weight"] = z[torch.randperm(len(z), generator=self.w.random)[:CODES]].clone()
        self.decode_latents(self.lookup(torch.zeros(1, 16, dtype=torch.int64)))
        last = next(name for name in reversed(self.w.held) if name.endswith(".bias"))
        self.w.held[last] += sum(self.pixels) / 2  # most pixels inside of the range
        self.w.held[last.replace("bias", "weight")] *= 0.4

    # Operations.

    def conv(self, x: Tensor, name: str, width: int, kernel: int = 3, bias: bool = True) -> Tensor:
        return self.valid(F.pad(x, [kernel // 2] * 4), name, width, kernel, bias)

    def valid(self, x: Tensor, name: str, width: int, kernel: int, bias: bool = True, stride: int = 1) -> Tensor:
        offset = self.w(f"{name}.bias", width) if bias else None
        return F.conv2d(x, self.w(f"{name}.weight", width, x.shape[1], kernel, kernel), offset, stride)

    def norm(self, x: Tensor, name: str) -> Tensor:
        batch, width = x.shape[:2]
        grouped = x.reshape(batch, 32, -1)
        centred = grouped - grouped.mean(dim=2, keepdim=True)
        scaled = (centred / (centred.square().mean(dim=2, keepdim=True) + 1e-6).sqrt()).reshape(x.shape)
        weight, bias = self.w(f"{name}.weight", width), self.w(f"{name}.bias", width)
        return scaled * weight.reshape(1, width, 1, 1) + bias.reshape(1, width, 1, 1)

    def block(self, x: Tensor, name: str, width: int) -> Tensor:
        h = self.conv(swish(self.norm(x, f"{name}.norm1")), f"{name}.conv1", width)
        h = self.conv(swish(self.norm(h, f"{name}.norm2")), f"{name}.conv2", width)
        return h + (x if x.shape[1] == width else self.conv(x, f"{name}.{self.cut}", width, 1))

    def attention(self, x: Tensor, name: str) -> Tensor:
        batch, width = x.shape[:2]
        norm, *maps = self.parts
        h = self.norm(x, f"{name}.{norm}").reshape(batch, width, -1)

        def apply(part: str, h: Tensor) -> Tensor:
            shape = (width, width) if self.flat_attention else (width, width, 1, 1)
            matrix = self.w(f"{name}.{part}.weight", *shape).reshape(width, width)
            return matrix @ h + self.w(f"{name}.{part}.bias", width)[:, None]

        q, k, v = (apply(part, h) for part in maps[:3])
        share = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / width**0.5, dim=2)
        return x + apply(maps[3], torch.einsum("bij,bcj->bci", share, v)).reshape(x.shape)

    def double(self, x: Tensor, name: str) -> Tensor:
        return self.conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3), name, x.shape[1])

    def halve(self, x: Tensor, name: str) -> Tensor:
        return self.valid(F.pad(x, [0, 1, 0, 1]), name, x.shape[1], 3, stride=2)

    # The network.

    def middle(self, h: Tensor, side: str) -> Tensor:
        first, attention, second = (name.format(side=side) for name in self.mids)
        h = self.block(h, first, h.shape[1])
        return self.block(self.attention(h, attention) if self.mid_attention else h, second, h.shape[1])

    def level(self, h: Tensor, side: str, way: str, level: int, number: int, blocks: int) -> Tensor:
        for j in range(blocks):
            h = self.block(h, self.res.format(side=side, way=way, i=number, j=j), CH * MULT[level])
            if level in self.attend:
                h = self.attention(h, self.attn.format(side=side, way=way, i=number, j=j))
        return h

    def encoder(self, x: Tensor) -> Tensor:
        h = self.conv(x, "encoder.conv_in", CH)
        for i in range(3):
            h = self.level(h, "encoder", "down", i, i, self.blocks)
            h = self.halve(h, self.down_conv.format(i=i)) if i < 2 else h
        h = swish(self.norm(self.middle(h, "encoder"), self.end.format(side="encoder")))
        return self.conv(self.conv(h, "encoder.conv_out", self.latent), "quant_conv", self.dim, 1)

    def decoder(self, z: Tensor) -> Tensor:
        h = self.conv(z, "post_quant_conv", self.latent, 1)
        h = self.middle(self.conv(h, "decoder.conv_in", CH * MULT[-1]), "decoder")
        for i in (2, 1, 0):
            h = self.level(h, "decoder", "up", i, self.up(i), self.blocks + 1)
            h = self.double(h, self.up_conv.format(i=self.up(i))) if i else h
        return self.conv(swish(self.norm(h, self.end.format(side="decoder"))), "decoder.conv_out", 3)

    # Tokens and pixels.

    def codes(self) -> Tensor:
        e = self.w("quantize.embedding.weight", CODES, self.dim)
        return e / e.norm(dim=1, keepdim=True) if self.unit else e

    def tokens(self, images: Tensor) -> Tensor:
        """Images in [-1, 1] to [B, 16]."""
        low, high = self.pixels
        z = self.encoder(low + (images + 1) / 2 * (high - low)).flatten(2).transpose(1, 2)
        z = z / z.norm(dim=2, keepdim=True) if self.unit else z
        return (z[:, :, None] - self.codes()).square().sum(dim=3).argmin(dim=2)

    def lookup(self, tokens: Tensor) -> Tensor:
        return self.codes()[tokens].transpose(1, 2).reshape(len(tokens), self.dim, 4, 4)

    def decode_latents(self, z: Tensor) -> Tensor:
        """Codes to images in [-1, 1], not clamped."""
        low, high = self.pixels
        return (self.decoder(z) - low) / (high - low) * 2 - 1


class WithoutAttention(Model):
    """LDM with attn_type none: no attention anywhere."""

    attend, mid_attention = (), False


class LlamaGen(Model):
    """Other names, the decoder's levels in the order in which they run, vectors of length 1 on both sides."""

    unit, attend = True, (2,)
    up = staticmethod(lambda i: 2 - i)
    res, attn = "{side}.conv_blocks.{i}.res.{j}", "{side}.conv_blocks.{i}.attn.{j}"
    down_conv, up_conv = "encoder.conv_blocks.{i}.downsample.conv", "decoder.conv_blocks.{i}.upsample.conv"
    mids = ("{side}.mid.0", "{side}.mid.1", "{side}.mid.2")


class Diffusers(Model):
    """Other names; attention as matrices, not as 1x1 convolutions."""

    flat_attention = True
    up = staticmethod(lambda i: 2 - i)
    res, attn, cut = "{side}.{way}_blocks.{i}.resnets.{j}", "{side}.{way}_blocks.{i}.attentions.{j}", "conv_shortcut"
    down_conv, up_conv = "encoder.down_blocks.{i}.downsamplers.0.conv", "decoder.up_blocks.{i}.upsamplers.0.conv"
    mids = ("{side}.mid_block.resnets.0", "{side}.mid_block.attentions.0", "{side}.mid_block.resnets.1")
    end = "{side}.conv_norm_out"
    parts = ("group_norm", "to_q", "to_k", "to_v", "to_out.0")


class OldDiffusers(Diffusers):
    """The names of attention before there was one class for all of it."""

    parts = ("group_norm", "query", "key", "value", "proj_attn")


class Unleashing(Model):
    """Flat lists of blocks that just run one after the other, so that nothing follows the last norm; pixels 0 to 1."""

    pixels = (0.0, 1.0)

    def block(self, x: Tensor, name: str, width: int) -> Tensor:
        self.w(f"{name}.conv_out.weight", width, x.shape[1], 1, 1)
        self.w(f"{name}.conv_out.bias", width)
        h = self.conv(swish(self.norm(x, f"{name}.norm1")), f"{name}.conv1", width)
        h = self.conv(swish(self.norm(h, f"{name}.norm2")), f"{name}.conv2", width)
        return h + (x if x.shape[1] == width else self.conv(x, f"{name}.conv_out", width, 1))

    def run(self, x: Tensor, side: str, plan: list[tuple[str, int]]) -> Tensor:
        for number, (kind, width) in enumerate(plan):
            name = f"{side}.blocks.{number}"
            if kind == "conv":
                x = self.conv(x, name, width)
            elif kind == "block":
                x = self.block(x, name, width)
            elif kind == "attention":
                x = self.attention(x, name)
            elif kind == "halve":
                x = self.halve(x, f"{name}.conv")
            elif kind == "double":
                x = self.double(x, f"{name}.conv")
            else:
                x = self.norm(x, name)
        return x

    def encoder(self, x: Tensor) -> Tensor:
        plan = [("conv", CH), ("block", 32), ("block", 32), ("halve", 0)]
        plan += [("block", 64), ("attention", 0), ("block", 64), ("attention", 0), ("halve", 0)]
        plan += [("block", 32), ("block", 32), ("block", 32), ("attention", 0), ("block", 32)]
        return self.run(x, "encoder", [*plan, ("norm", 0), ("conv", self.dim)])

    def decoder(self, z: Tensor) -> Tensor:
        plan = [("conv", 32), ("block", 32), ("attention", 0), ("block", 32), ("block", 32), ("block", 32)]
        plan += [("double", 0), ("block", 64), ("attention", 0), ("block", 64), ("attention", 0), ("double", 0)]
        plan += [("block", 32), ("block", 32), ("norm", 0), ("conv", 3)]
        return self.run(z, "generator", plan)


class MaskGIT(Model):
    """No biases in blocks, averages instead of strided convolutions, the shortcut over the block's output."""

    pixels = (0.0, 1.0)
    attend = ()

    def same(self, x: Tensor, name: str, width: int, kernel: int, bias: bool) -> Tensor:
        short = kernel - 1  # TensorFlow's "same" at stride 1: what the kernel overhangs, the larger half at the end
        padded = F.pad(x, [short // 2, short - short // 2, short // 2, short - short // 2])
        return self.valid(padded, name, width, kernel, bias)

    def block(self, x: Tensor, name: str, width: int) -> Tensor:
        h = self.same(swish(self.norm(x, f"{name}.norm1")), f"{name}.conv1", width, 3, False)
        h = self.same(swish(self.norm(h, f"{name}.norm2")), f"{name}.conv2", width, 3, False)
        return h + (x if x.shape[1] == width else self.same(h, f"{name}.nin_shortcut", width, 1, False))

    def encoder(self, x: Tensor) -> Tensor:
        h = self.same(x, "encoder.conv_in", CH, 3, False)
        for i in range(3):
            h = self.level(h, "encoder", "down", i, i, self.blocks)
            if i < 2:
                h = (h[:, :, ::2, ::2] + h[:, :, 1::2, ::2] + h[:, :, ::2, 1::2] + h[:, :, 1::2, 1::2]) / 4
        for j in range(self.blocks):
            h = self.block(h, f"encoder.mid.{j}", h.shape[1])
        return self.same(swish(self.norm(h, "encoder.norm_out")), "encoder.conv_out", self.dim, 1, True)

    def decoder(self, z: Tensor) -> Tensor:
        h = self.same(z, "decoder.conv_in", CH * MULT[-1], 3, True)
        for j in range(self.blocks):
            h = self.block(h, f"decoder.mid.{j}", h.shape[1])
        for i in (2, 1, 0):
            h = self.level(h, "decoder", "up", i, i, self.blocks)
            h = self.double(h, f"decoder.up.{i}.upsample_conv") if i else h
        return self.same(swish(self.norm(h, "decoder.norm_out")), "decoder.conv_out", 3, 3, True)
