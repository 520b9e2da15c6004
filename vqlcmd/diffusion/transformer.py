"""The transformer: (vectors, t, class) -> logits, and nothing else. Section 3 of docs/method.md.

Shapes: B images, N tokens, D input size, W width, K codes.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlcmd.runtime.machine import autocast, compiled


def sinusoid(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of `positions` (P,) at width / 2 frequencies from 1 down to 1e-4: (P, width) float32."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=positions.device) * (-math.log(10_000) / max(half - 1, 1)))
    angles = positions.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021): rotates features (i, i + d/2) of d by position times 1e-4^(2i/d).

    The dot product of two rotated vectors depends on their relative position alone. The pairing is GPT-NeoX's; Su et
    al. rotate neighbouring features.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, tokens: int, size: int):
        super().__init__()
        angles = torch.arange(tokens)[:, None] * 1e-4 ** (torch.arange(size // 2) * (2 / size))
        self.register_buffer("cos", torch.cat([angles.cos(), angles.cos()], dim=1), persistent=False)
        self.register_buffer("sin", torch.cat([-angles.sin(), angles.sin()], dim=1), persistent=False)

    def forward(self, x_BHNd: Tensor, first: int = 0) -> Tensor:
        """Queries or keys (B, heads, N, d) of the positions from `first` on, rotated, in their own precision."""
        rows = slice(first, first + x_BHNd.shape[2])
        swapped = x_BHNd.roll(x_BHNd.shape[3] // 2, dims=3)
        return torch.addcmul(x_BHNd * self.cos[rows], swapped, self.sin[rows]).to(x_BHNd.dtype)


class AdaLN(nn.Module):
    """(1 + scale) LayerNorm(x) + shift, no affine parameters; [scale, shift] = Linear(SiLU(condition))."""

    def __init__(self, width: int):
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)

    def forward(self, x_BNW: Tensor, condition_BW: Tensor) -> Tensor:
        scale, shift = self.modulation(F.silu(condition_BW))[:, None].chunk(2, dim=2)
        return torch.addcmul(shift, F.layer_norm(x_BNW, x_BNW.shape[-1:]), 1 + scale)


class ClassAdaLN(nn.Module):
    """AdaLN conditioned on a class, through a table of its own with one more row for the null class."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.classes = nn.Embedding(classes + 1, width)
        self.norm = AdaLN(width)

    def forward(self, x_BNW: Tensor, label: Tensor) -> Tensor:
        return self.norm(x_BNW, self.classes(label))


class PlainLN(nn.LayerNorm):
    """LayerNorm that ignores the class it is given, for models without classes."""

    def forward(self, input: Tensor, label: Tensor | None = None) -> Tensor:  # noqa: A002
        return super().forward(input)


class KVCache:
    """Keys and values of the tokens so far in each block, for sampling up to `tokens` tokens one by one."""

    def __init__(self, tokens: int):
        self.tokens, self.length = tokens, 0
        self._blocks: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, block: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append the key and value of the next token (B, heads, 1, W / heads); returns those of all tokens so far."""
        if block not in self._blocks:
            shape = (*k.shape[:2], self.tokens, k.shape[3])
            self._blocks[block] = k.new_empty(shape), v.new_empty(shape)
        keys, values = self._blocks[block]
        keys[:, :, self.length : self.length + 1], values[:, :, self.length : self.length + 1] = k, v
        return keys[:, :, : self.length + 1], values[:, :, : self.length + 1]


class Attention(nn.Module):
    """Multi-head self-attention with dropout on its weights, over all tokens or, if `causal`, not over later ones."""

    def __init__(self, width: int, heads: int, dropout: float, causal: bool = False, rotary: Rotary | None = None):
        super().__init__()
        self.heads, self.dropout, self.causal, self.rotary = heads, dropout, causal, rotary
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BNW: Tensor, memory: tuple[KVCache, int] | None = None) -> Tensor:
        parts_BNHd = self.qkv(x_BNW).unflatten(2, (3, self.heads, -1)).unbind(dim=2)
        q, k, v = (part.transpose(1, 2) for part in parts_BNHd)
        device = x_BNW.device.type
        # On CPUs the fused kernel's backward pass in bf16 is many times slower than in float32.
        with autocast(device, enabled=device not in ("cpu", "meta") and torch.is_autocast_enabled(device)):
            if device == "cpu":
                q, k, v = q.float(), k.float(), v.float()
            if self.rotary is not None:
                first = memory[0].length if memory else 0
                q, k = self.rotary(q, first), self.rotary(k, first)
            if memory is not None:
                k, v = memory[0].extend(memory[1], k, v)
            mixed = F.scaled_dot_product_attention(
                q,
                k,
                v,
                dropout_p=self.dropout if self.training else 0.0,
                # With a cache the only query is the last token, which may attend to all.
                is_causal=self.causal and memory is None,
            )
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """x += Attn(AdaLN_t(x)); x += MLP(LN(x)) without classes, MLP(AdaLN_c(x)) with them."""

    def __init__(
        self, width: int, heads: int, classes: int, dropout: float, causal: bool, rotary: Rotary | None = None
    ):
        super().__init__()
        self.time_norm = AdaLN(width)
        self.attention = Attention(width, heads, dropout, causal, rotary)
        self.class_norm = ClassAdaLN(width, classes) if classes else PlainLN(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(
        self, x_BNW: Tensor, time_BW: Tensor, label: Tensor | None, memory: tuple[KVCache, int] | None = None
    ) -> Tensor:
        x_BNW = x_BNW + self.attention(self.time_norm(x_BNW, time_BW), memory)
        return x_BNW + self.mlp(self.class_norm(x_BNW, label))


class Transformer(nn.Module):
    """Transformer over N tokens, conditioned on time and, where `classes` > 0, on a class.

    Bidirectional, unless `causal`: then a token attends only to itself and those before it. Positions are "sinusoidal",
    added to the first block's input, or "rotary", rotations of all queries and keys, for an even head dimension.
    """

    positions: Tensor

    def __init__(
        self,
        *,
        tokens: int,
        inputs: int,
        codes: int,
        classes: int,
        layers: int,
        heads: int,
        width: int,
        dropout: float,
        positions: str,
        causal: bool = False,
    ):
        super().__init__()
        self.width = width
        rotary = Rotary(tokens, width // heads) if positions == "rotary" else None
        self.input = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(Block(width, heads, classes, dropout, causal, rotary) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, codes)
        added = sinusoid(torch.arange(tokens), width) if rotary is None else torch.zeros(tokens, width)
        self.register_buffer("positions", added, persistent=False)
        self.apply(_initialise)

    def forward(self, z_BND: Tensor, t: Tensor, label: Tensor | None = None, memory: KVCache | None = None) -> Tensor:
        """Logits (B, N, K) float32 for vectors (B, N, D), times (B,) in [0, 1] and classes (B,), the last one null.

        With `memory`, the cache of a causal network, it processes one more token: vectors (B, 1, D) to logits
        (B, 1, K).
        """
        time_BW = sinusoid(t * 1000, self.width)
        first = memory.length if memory else 0
        x_BNW = self.input(z_BND) + self.positions[first : first + z_BND.shape[1]]
        for number, block in enumerate(self.blocks):
            x_BNW = block(x_BNW, time_BW, label, (memory, number) if memory else None)
        if memory:
            memory.length += 1
        return self.output(self.norm(x_BNW)).float()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, AdaLN):
        # apply() visits children first, so this overrides the linear layer's initialisation. Class tables keep N(0, 1).
        nn.init.zeros_(module.modulation.weight)


def compile_network(*, cuda_graphs: bool = False) -> None:
    """Compile the forward pass of every Transformer of this process, except passes with a KV cache.

    Blocks are compiled, so one compilation serves all layers and batch sizes. With `cuda_graphs` the whole network is
    compiled, for each shape, since a CUDA graph of a block would be recorded again for each layer's weights. Passes on
    the meta device, on which costs are counted, are not compiled.
    """
    module: Any = Transformer if cuda_graphs else Block
    eager = module.forward
    fast = compiled(eager, cuda_graphs=cuda_graphs)

    def forward(self: nn.Module, x_BND: Tensor, t: Tensor, label: Tensor | None = None, memory: Any = None) -> Tensor:
        written = memory or x_BND.is_meta
        return eager(self, x_BND, t, label, memory) if written else fast(self, x_BND, t, label)

    module.forward = forward
