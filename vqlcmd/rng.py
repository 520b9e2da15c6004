"""Counter-based random numbers, keyed by (seed, purpose, row, step, draw) and by nothing else.

A row stands for an image: its position in the global batch, or its number among the samples. So the same seed gives the
same numbers on any number of processes, in batches of any size, interrupted or not, and there is no generator state to
save.
"""

import hashlib
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10 (Salmon et al. 2011): four 32-bit counters, held in int64 tensors, to four random 32-bit words.

    Shapes broadcast, and the first rounds run on the shapes of the single counters, before these are combined.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The product wraps around in int64, which keeps its low 64 bits.
        product_0, product_1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        # An odd word may have bits above 32, until it is mixed into an even one, which is masked.
        c0, c2 = ((product_1 >> 32) ^ c1 ^ k0) & _WORD, ((product_0 >> 32) ^ c3 ^ k1) & _WORD
        c1, c3 = product_1, product_0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1 & _WORD, c2, c3 & _WORD


def address(*parts: object) -> int:
    """A 64-bit hash of `parts`: a seed for a generator, or a key."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "little")


@dataclass(frozen=True)
class CounterRNG:
    """One independent stream per row. `rows`: (B,) int64 in [0, 2^32); the numbers are on its device."""

    seed: int
    purpose: str
    rows: Tensor
    step: int = 0
    cache: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    """Words of draws that were prefetched."""

    def with_step(self, step: int) -> "CounterRNG":
        """The same rows at another step (of training, or of a sampler)."""
        return replace(self, step=step, cache={})

    def first_rows(self, count: int) -> "CounterRNG":
        """Rows 0 to count - 1 of the same streams."""
        return replace(self, rows=torch.arange(count, device=self.rows.device), cache={})

    def prefetch(self, **counts: int) -> "CounterRNG":
        """The same numbers, with the named draws ({draw: count per row}) computed at once, which is faster."""
        return replace(self, cache=self._mixed(counts))

    def uniform(self, draw: str, *shape: int) -> Tensor:
        """(B, *shape) float32, uniform on the open interval (0, 1). `draw` names what the numbers are for."""
        words = self._words(draw, math.prod(shape))
        # 23 bits and a half: the largest value is exact in float32 and below 1.
        return (((words >> 9).float() + 0.5) * 2.0**-23).view(len(self.rows), *shape)

    def stratified(self, draw: str, total: int) -> Tensor:
        """(B,) float32 in (0, 1]: row i falls into the i-th of `total` equal intervals, which lowers variance."""
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
        words = (self.cache if draw in self.cache else self._mixed({draw: count}))[draw]
        assert words.shape[1] == _blocks(count) * 4, f"{draw}: {count} numbers asked for, {words.shape[1]} prefetched"
        return words[:, :count]

    def _mixed(self, counts: Mapping[str, int]) -> dict[str, Tensor]:
        """Words (B, at least count) of each draw; their order depends on the draw's number of blocks."""
        key, device = address(self.seed, self.purpose), self.rows.device
        sizes = {draw: _blocks(count) for draw, count in counts.items()}
        block = torch.cat([torch.arange(size, device=device) for size in sizes.values()])
        name = torch.cat([torch.full((size,), _number(draw), device=device) for draw, size in sizes.items()])
        step = torch.full((1, 1), self.step, device=device)
        words = philox((block, self.rows[:, None], step, name), (key & _WORD, key >> 32))
        parts = zip(*(word.split(list(sizes.values()), dim=1) for word in words), strict=True)
        return {draw: torch.cat(part, dim=1) for draw, part in zip(sizes, parts, strict=True)}


def _blocks(count: int) -> int:
    """Number of blocks of four words that `count` numbers need."""
    return (count + 3) // 4


def _number(draw: str) -> int:
    return zlib.crc32(draw.encode())
