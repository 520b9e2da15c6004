"""How codes learn: by k-means at first, then as moving averages of their latents or by gradient.

Shapes: D codebook dimensions, K codes, R rows: latents of many positions, of all processes.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqlcmd.tokenizer.vqgan import VQGAN

LLOYD_ROUNDS = 20
ROWS_PER_CODE = 256
"""Behind k-means."""


def distances(z_RD: Tensor, e_KD: Tensor) -> Tensor:
    """|z - e|^2 of every row to every code, less |z|^2: [R, K]."""
    return e_KD.square().sum(dim=1) - 2 * z_RD @ e_KD.T


def sums_and_counts(z_RD: Tensor, codes_R: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    """Of the rows that fell to each code: their sum [K, D] and their number [K]."""
    member_RK = F.one_hot(codes_R, codes).to(z_RD.dtype)
    return member_RK.T @ z_RD, member_RK.sum(dim=0)


def k_means(z_RD: Tensor, codes: int, random: torch.Generator) -> Tensor:
    """Lloyd's algorithm: [K, D]. A centre that loses its rows moves to a random row.

    Starts from rows drawn in proportion to their squared distance from those drawn before (k-means++).
    """
    e_KD = z_RD[torch.randint(len(z_RD), (1,), generator=random).to(z_RD.device)].repeat(codes, 1)
    nearest_R = torch.full_like(z_RD[:, 0], math.inf)
    for k in range(1, codes):
        nearest_R = torch.minimum(nearest_R, (z_RD - e_KD[k - 1]).square().sum(dim=1))
        mass_R = nearest_R.double().cumsum(dim=0)
        drawn = torch.rand((), generator=random, dtype=torch.float64).to(z_RD.device) * mass_R[-1]
        e_KD[k] = z_RD[torch.searchsorted(mass_R, drawn).clamp(max=len(z_RD) - 1)]
    for _ in range(LLOYD_ROUNDS):
        sums_KD, counts_K = sums_and_counts(z_RD, distances(z_RD, e_KD).argmin(dim=1), codes)
        strays_KD = z_RD[torch.randint(len(z_RD), (codes,), generator=random).to(z_RD.device)]
        e_KD = torch.where(counts_K[:, None] > 0, sums_KD / counts_K.clamp(min=1)[:, None], strays_KD)
    return e_KD


class Codebook:
    """The table of a VQGAN, and how popular its codes are. A code that hardly any latent chooses starts anew.

    `smoothing` is the memory of the averages, per step; a code is unused below the share `restart` of even use.
    """

    def __init__(self, vqgan: VQGAN, smoothing: float, restart: float) -> None:
        self.vqgan, self.smoothing, self.restart = vqgan, smoothing, restart
        self.counts_K = torch.ones_like(vqgan.codebook.detach()[:, 0])

    def begin(self) -> None:
        """The table is new: its codes are of average popularity."""
        self.counts_K.fill_(1.0)

    def update(self, z_RD: Tensor, codes_R: Tensor, random: torch.Generator) -> None:
        """After a step in which the latents `z_RD` chose `codes_R`."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        for name, value in saved.items():
            getattr(self, name).copy_(value)

    def _unused(self, counts_K: Tensor, z_RD: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Count; which codes are unused [K], and rows that could take their places [K, D]."""
        codes = len(self.counts_K)
        # Counts are relative to even use, so that 1 is a code of average popularity.
        self.counts_K.lerp_(counts_K * (codes / len(z_RD)), 1 - self.smoothing)
        unused_K = self.counts_K < self.restart
        self.counts_K.copy_(torch.where(unused_K, 1.0, self.counts_K))
        return unused_K, z_RD[torch.randint(len(z_RD), (codes,), generator=random).to(z_RD.device)]


class MovingCodebook(Codebook):
    """Codes as moving averages of the latents that fall to them."""

    def __init__(self, vqgan: VQGAN, smoothing: float, restart: float) -> None:
        super().__init__(vqgan, smoothing, restart)
        self.sums_KD = vqgan.codebook.detach().clone()

    def begin(self) -> None:
        super().begin()
        self.sums_KD.copy_(self.vqgan.codebook.detach())

    @torch.no_grad()
    def update(self, z_RD: Tensor, codes_R: Tensor, random: torch.Generator) -> None:
        sums_KD, counts_K = sums_and_counts(z_RD, codes_R, len(self.counts_K))
        self.sums_KD.lerp_(sums_KD * (len(self.counts_K) / len(z_RD)), 1 - self.smoothing)
        unused_K, strays_KD = self._unused(counts_K, z_RD, random)
        self.sums_KD.copy_(torch.where(unused_K[:, None], strays_KD, self.sums_KD))
        self.vqgan.codebook.copy_(self.vqgan.unit(self.sums_KD / self.counts_K[:, None]))


class LearnedCodebook(Codebook):
    """Codes that the optimizer moves."""

    @torch.no_grad()
    def update(self, z_RD: Tensor, codes_R: Tensor, random: torch.Generator) -> None:
        counts_K = torch.bincount(codes_R, minlength=len(self.counts_K)).to(z_RD.dtype)
        unused_K, strays_KD = self._unused(counts_K, z_RD, random)
        e_KD = torch.where(unused_K[:, None], strays_KD, self.vqgan.codebook)
        self.vqgan.codebook.copy_(self.vqgan.unit(e_KD))
