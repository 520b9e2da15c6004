"""Markov chains on codes: keep a token, replace it by a random code, or mask it. Section 8 of docs/method.md.

Shapes: B images, N tokens, K codes. A state is a code, or K for [mask]; distributions over states are (B, N, K + 1).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Rates(NamedTuple):
    """q(x_t | x_s): probabilities that a code is kept, replaced by one given code, masked. (B, 1, 1) float64 each."""

    keep: Tensor
    replace: Tensor
    mask: Tensor


class Kernel(nn.Module):
    """A chain given by its cumulative probabilities at times 0 (clean) to T: `keep` and `mask`, (T + 1,) float64.

    A token that is neither kept nor masked is replaced by a code drawn uniformly from all K. [mask] is absorbing.
    """

    keep: Tensor
    mask: Tensor

    def __init__(self, keep: Tensor, mask: Tensor, codes: int):
        super().__init__()
        self.codes, self.timesteps = codes, len(keep) - 1
        self.register_buffer("keep", keep.double(), persistent=False)
        self.register_buffer("mask", mask.double(), persistent=False)

    def rates(self, s: Tensor, t: Tensor) -> Rates:
        """Transition probabilities from times s (B,) to later times t (B,)."""
        keep = self.keep[t] / self.keep[s]
        mask = 1 - (1 - self.mask[t]) / (1 - self.mask[s])
        replace = ((1 - keep - mask) / self.codes).clamp_min(0)
        return Rates(*(rate[:, None, None] for rate in (keep, replace, mask)))

    def diffuse(self, tokens_BN: Tensor, t: Tensor, which_BN: Tensor, code_BN: Tensor) -> Tensor:
        """x_t ~ q(x_t | x_0): (B, N). Two uniform numbers per token decide what happens and which code replaces it."""
        keep, _, mask = (rate[:, :, 0] for rate in self.rates(torch.zeros_like(t), t))
        any_code_BN = (code_BN * self.codes).long()
        replaced_BN = torch.where(which_BN < mask + keep, tokens_BN, any_code_BN)
        return torch.where(which_BN < mask, self.codes, replaced_BN)

    def prior(self, which_BN: Tensor, code_BN: Tensor) -> Tensor:
        """x_T without knowledge of x_0: (B, N), [mask] or a uniform code, from two uniform numbers per token."""
        return torch.where(which_BN < self._masked(), self.codes, (code_BN * self.codes).long())

    def prior_kl(self, tokens_BN: Tensor) -> Tensor:
        """KL(q(x_T | x_0) || prior) per token, which is the same for all tokens: (B,), nats."""
        last = torch.full((len(tokens_BN),), self.timesteps, device=tokens_BN.device)
        keep, replace, mask = (rate[:, 0, 0] for rate in self.rates(torch.zeros_like(last), last))
        masked = self._masked()
        any_code = (1 - masked) / self.codes
        shares = [(keep + replace, any_code, 1), (replace, any_code, self.codes - 1), (mask, masked, 1)]
        return sum((n * (torch.xlogy(q, q) - torch.xlogy(q, p)) for q, p, n in shares), torch.zeros_like(keep)).float()

    def likelihood(self, x_BN: Tensor, s: Tensor, t: Tensor, dtype: torch.dtype) -> Tensor:
        """q(x_t | x_s = j) for every code j: (B, N, K)."""
        keep, replace, mask = (rate.to(dtype) for rate in self.rates(s, t))
        same_BNK = F.one_hot(x_BN, self.codes + 1)[..., : self.codes].to(dtype)
        return torch.where((x_BN == self.codes)[..., None], mask, keep * same_BNK + replace)

    def posterior(self, p_BNK: Tensor, x_BN: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """sum_k p(x_0 = k) q(x_s | x_t, x_0 = k): (B, N, K + 1), VQ-Diffusion's step. Exact where p is one-hot.

        Linear in p: the result sums to as much as p does.
        """
        ratio_BNK = p_BNK / self.likelihood(x_BN, torch.zeros_like(t), t, p_BNK.dtype)
        return self._backwards(ratio_BNK, x_BN, s, t)

    def joint(self, p_BNK: Tensor, x_BN: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """q(x_t | x_s) sum_k q(x_s | x_0 = k) p(x_0 = k), normalised over x_s: (B, N, K + 1), D3PM's step."""
        unnormalised = self._backwards(p_BNK, x_BN, s, t)
        return unnormalised / unnormalised.sum(dim=2, keepdim=True)

    def _backwards(self, weight_BNK: Tensor, x_BN: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """q(x_t | x_s) sum_k q(x_s | x_0 = k) weight_k over states x_s, without a K x K matrix."""
        keep, replace, mask = (rate.to(weight_BNK.dtype) for rate in self.rates(torch.zeros_like(s), s))
        total_BN1 = weight_BNK.sum(dim=2, keepdim=True)
        codes_BNK = self.likelihood(x_BN, s, t, weight_BNK.dtype) * (keep * weight_BNK + replace * total_BN1)
        masked_BN1 = torch.where((x_BN == self.codes)[..., None], mask * total_BN1, 0.0)
        return torch.cat([codes_BNK, masked_BN1], dim=2)

    def _masked(self) -> Tensor:
        return self.mask[-1] / (1 - self.keep[-1])


def one_hot(tokens_BN: Tensor, codes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """One-hot distributions (B, N, K) of tokens (B, N)."""
    return F.one_hot(tokens_BN, codes).to(dtype)


def kl(q: Tensor, p: Tensor) -> Tensor:
    """KL(q || p) of distributions over states, averaged over tokens: (B,), nats."""
    tiny = torch.finfo(p.dtype).tiny
    return (torch.xlogy(q, q) - q * p.clamp_min(tiny).log()).sum(dim=2).mean(dim=1)


def sample_categorical(p: Tensor, u_BN: Tensor) -> Tensor:
    """States (B, N), drawn with one uniform number per token from distributions that need not sum to 1."""
    cumulative = p.cumsum(dim=2)
    return (cumulative < u_BN[..., None] * cumulative[..., -1:]).sum(dim=2).clamp_max(p.shape[2] - 1)
