"""How the codebook is trained: initialised by k-means, then updated by moving averages of latents or by gradients.

Shapes: D codebook dimensions, K codes, R rows: latents of many positions, from all processes.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqlcmd.tokenizer.vqgan import VQGAN

LLOYD_ROUNDS = 20
ROWS_PER_CODE = 256
"""Latents per code that k-means is run on."""


def distances(z_RD: Tensor, e_KD: Tensor) -> Tensor:
    """|z - e|^2 - |z|^2 for every row and every code: [R, K]."""
    return e_KD.square().sum(dim=1) - 2 * z_RD @ e_KD.T


def sums_and_counts(z_RD: Tensor, codes_R: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    """Sum [K, D] and number [K] of the rows that are assigned to each code."""
    member_RK = F.one_hot(codes_R, codes).to(z_RD.dtype)
    return member_RK.T @ z_RD, member_RK.sum(dim=0)


def k_means(z_RD: Tensor, codes: int, random: torch.Generator) -> Tensor:
    """Cluster centres [K, D] by Lloyd's algorithm. A centre that loses all its rows moves to a random row.

    The initial centres are rows drawn in proportion to their squared distance from those drawn before (k-means++).
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
    """Trains the codebook of a VQGAN and tracks the usage of its codes. Codes that are hardly used start anew.

    `smoothing` is the decay of the moving averages per step. A code counts as unused if its usage is below `restart`
    times that of uniform use.
    """

    def __init__(self, vqgan: VQGAN, smoothing: float, restart: float) -> None:
        self.vqgan, self.smoothing, self.restart = vqgan, smoothing, restart
        self.counts_K = torch.ones_like(vqgan.codebook.detach()[:, 0])

    def begin(self) -> None:
        """Reset the usage to uniform, for a new codebook."""
        self.counts_K.fill_(1.0)

    def update(self, z_RD: Tensor, codes_R: Tensor, random: torch.Generator) -> None:
        """Update after a step in which the latents `z_RD` were assigned to `codes_R`."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        for name, value in saved.items():
            getattr(self, name).copy_(value)

    def _unused(self, counts_K: Tensor, z_RD: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Update the usage; returns which codes are unused [K], and random rows to replace them [K, D]."""
        codes = len(self.counts_K)
        # Counts are relative to uniform use, so that 1 is average.
        self.counts_K.lerp_(counts_K * (codes / len(z_RD)), 1 - self.smoothing)
        unused_K = self.counts_K < self.restart
        self.counts_K.copy_(torch.where(unused_K, 1.0, self.counts_K))
        return unused_K, z_RD[torch.randint(len(z_RD), (codes,), generator=random).to(z_RD.device)]


class MovingCodebook(Codebook):
    """Codes are moving averages of the latents that are assigned to them."""

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
    """Codes are trained by the optimizer, and only unused ones are replaced here."""

    @torch.no_grad()
    def update(self, z_RD: Tensor, codes_R: Tensor, random: torch.Generator) -> None:
        counts_K = torch.bincount(codes_R, minlength=len(self.counts_K)).to(z_RD.dtype)
        unused_K, strays_KD = self._unused(counts_K, z_RD, random)
        e_KD = torch.where(unused_K[:, None], strays_KD, self.vqgan.codebook)
        self.vqgan.codebook.copy_(self.vqgan.unit(e_KD))
