"""Random numbers with an address: a value depends on (seed, purpose, row, step, draw) and on nothing else.

A row is an image: its position in the global batch, or its number among the samples. So the same seed gives the same
numbers on one process or eight, in batches of any size, interrupted or not, and there is no generator state to save.
"""

import hashlib
import math
import zlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10 (Salmon et al. 2011): four 32-bit counters, held in int64 tensors, to four random 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The product wraps around in int64, which keeps its low 64 bits; the masks undo the sign.
        product_0, product_1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product_1 >> 32) & _WORD) ^ c1 ^ k0,
            product_1 & _WORD,
            ((product_0 >> 32) & _WORD) ^ c3 ^ k1,
            product_0 & _WORD,
        )
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def address(*parts: object) -> int:
    """64 bits that stand for `parts`: a seed for a generator, or a key."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "little")


@dataclass(frozen=True)
class Noise:
    """One independent stream per row. `rows`: (B,) int64 in [0, 2^32); the numbers come on its device."""

    seed: int
    purpose: str
    rows: Tensor
    step: int = 0

    def at(self, step: int) -> "Noise":
        """The same rows at another step (of training, or of a sampler)."""
        return replace(self, step=step)

    def of(self, count: int) -> "Noise":
        """Rows 0 to count - 1 of the same streams."""
        return replace(self, rows=torch.arange(count, device=self.rows.device))

    def uniform(self, draw: str, *shape: int) -> Tensor:
        """(B, *shape) float32, uniform on the open interval (0, 1). `draw` names what the numbers are for."""
        words = self._words(draw, math.prod(shape))
        # 23 bits and a half: the largest value is exact in float32 and below 1.
        return (((words >> 9).float() + 0.5) * 2.0**-23).view(len(self.rows), *shape)

    def stratified(self, draw: str, total: int) -> Tensor:
        """(B,) float32 in (0, 1]: row i of `total` falls into the i-th of as many equal parts, to lower variance."""
        return (self.rows.float() + self.uniform(draw)) / total

    def normal(self, draw: str, *shape: int) -> Tensor:
        """(B, *shape) float32, standard normal (Box-Muller)."""
        count = math.prod(shape)
        radius_words, angle_words = self._words(draw, count + count % 2).chunk(2, dim=1)
        radius = (-2 * ((radius_words + 1).float() * 2.0**-32).log()).sqrt()
        angle = angle_words.float() * (2 * math.pi * 2.0**-32)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count].reshape(-1, *shape)

    def _words(self, draw: str, count: int) -> Tensor:
        """(B, count) int64 in [0, 2^32)."""
        key = address(self.seed, self.purpose)
        block = torch.arange((count + 3) // 4, device=self.rows.device)
        row = self.rows[:, None].expand(-1, len(block))
        step, name = torch.full_like(row, self.step), torch.full_like(row, zlib.crc32(draw.encode()))
        words = philox((block.expand_as(row), row, step, name), (key & _WORD, key >> 32))
        return torch.cat(words, dim=1)[:, :count]
