"""Token embeddings and random dropping: Psi(x). Sections 1 and 4 of docs/method.md.

Shapes: B images, N tokens, D embedding size, K codes. A new kind of table or of dropping is an entry in KINDS or
DROPPING.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vqlcmd.runtime.errors import ConfigError


class Embedding(nn.Module):
    """Rows e_k of a learned table E, and the learned [mask] vector that stands for a dropped token."""

    def __init__(self, codes: int, dim: int, init_std: float):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(codes, dim) * init_std)
        self.mask = nn.Parameter(torch.randn(dim) * init_std)

    @property
    def table(self) -> Tensor:
        """The rows e_k as the diffusion uses them: (K, D)."""
        return self.weight

    def forward(self, tokens_BN: Tensor) -> Tensor:
        """Psi(x): (B, N, D)."""
        return nn.functional.embedding(tokens_BN, self.table)

    def masked(self, psi_BND: Tensor, dropped_BN: Tensor) -> Tensor:
        """Psi(x) with [mask] where `dropped` is true."""
        return torch.where(dropped_BN[..., None], self.mask, psi_BND)


class UnitEmbedding(Embedding):
    """A learned table whose rows are scaled to length sqrt(D) at every use (CDCD, and CSDM with l2-norm)."""

    @property
    def table(self) -> Tensor:
        return nn.functional.normalize(self.weight, dim=1) * self.weight.shape[1] ** 0.5


class CodebookEmbedding(Embedding):
    """The VQGAN's own codebook, centred, scaled to unit variance and frozen (CSDM-dagger)."""

    def __init__(self, codebook_KD: Tensor):
        super().__init__(*codebook_KD.shape, init_std=1.0)
        del self.weight
        centred = codebook_KD - codebook_KD.mean(dim=0)
        self.register_buffer("weight", centred / centred.std())


def _codebook(codebook_KD: Tensor, dim: int, init_std: float) -> Embedding:
    del init_std
    if not codebook_KD.shape[1]:
        raise ConfigError("`embedding: codebook` needs a codebook, and this tokenizer has none: set it to learned")
    if codebook_KD.shape[1] != dim:
        size = codebook_KD.shape[1]
        raise ConfigError(
            f"embedding_dim is {dim}, but `embedding: codebook` uses the VQGAN's own size: set it to {size}"
        )
    return CodebookEmbedding(codebook_KD)


KINDS: dict[str, Callable[[Tensor, int, float], Embedding]] = {
    "learned": lambda codebook_KD, dim, init_std: Embedding(len(codebook_KD), dim, init_std),
    "unit": lambda codebook_KD, dim, init_std: UnitEmbedding(len(codebook_KD), dim, init_std),
    "codebook": _codebook,
}


def build_embedding(kind: str, codebook_KD: Tensor, dim: int, init_std: float) -> Embedding:
    """The embedding that `embedding` in params.yaml names; `codebook_KD` is the VQGAN's codebook, which determines K.

    ConfigError where `codebook` is asked for and the tokenizer has none, or one of another dimension than `dim`.
    """
    return KINDS[kind](codebook_KD, dim, init_std)


# Fraction of dropped tokens per image: (ratio, u in (0, 1) per image, t in (0, 1)) -> (B,).
DROPPING: dict[str, Callable[[float, Tensor, Tensor], Tensor]] = {
    "fixed": lambda ratio, u, t: torch.full_like(u, ratio),
    "random": lambda ratio, u, t: u,
    "linear": lambda ratio, u, t: t.to(u.dtype),
}
