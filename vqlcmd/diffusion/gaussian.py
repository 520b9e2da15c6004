"""Gaussian diffusion of token embeddings: pure functions, noise is an argument. Section 2 of docs/method.md.

Shapes: B images, N tokens, D embedding size, K codes. Times t and s are (B,) with s < t.
"""

import torch
from torch import Tensor

from vqlcmd.diffusion.schedule import Schedule
from vqlcmd.runtime.machine import autocast


def diffuse(schedule: Schedule, psi_BND: Tensor, t: Tensor, eps_BND: Tensor) -> Tensor:
    """z_t = alpha_t psi + sigma_t eps: (B, N, D). Equation 1."""
    return _wide(schedule.alpha(t), psi_BND) * psi_BND + _wide(schedule.sigma(t), psi_BND) * eps_BND


def posterior(schedule: Schedule, z_BND: Tensor, psi_BND: Tensor, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, N, D) and standard deviation (B, 1, 1) of q(z_s | z_t, psi)."""
    alpha_t, alpha_s, sigma_s = schedule.alpha(t), schedule.alpha(s), schedule.sigma(s)
    # Fraction of z_t's noise that is added after s: sigma_{t|s}^2 / sigma_t^2 = 1 - SNR(t) / SNR(s), no cancellation.
    fresh = -torch.expm1(schedule.log_snr(t) - schedule.log_snr(s))
    keep = (alpha_t / alpha_s) * (sigma_s / schedule.sigma(t)) ** 2
    mean = _wide(keep, z_BND) * z_BND + _wide(alpha_s * fresh, z_BND) * psi_BND
    return mean, _wide(sigma_s * fresh.sqrt(), z_BND)


def ancestral_step(
    schedule: Schedule, z_BND: Tensor, psi_hat_BND: Tensor, s: Tensor, t: Tensor, eps_BND: Tensor
) -> Tensor:
    """z_s drawn from q(z_s | z_t, psi_hat): (B, N, D)."""
    mean, std = posterior(schedule, z_BND, psi_hat_BND, s, t)
    return mean + std * eps_BND


def ddim_step(schedule: Schedule, z_BND: Tensor, psi_hat_BND: Tensor, s: Tensor, t: Tensor) -> Tensor:
    """z_s = alpha_s psi_hat + sigma_s (z_t - alpha_t psi_hat) / sigma_t: (B, N, D)."""
    ratio = schedule.sigma(s) / schedule.sigma(t)
    return _wide(ratio, z_BND) * z_BND + _wide(schedule.alpha(s) - ratio * schedule.alpha(t), z_BND) * psi_hat_BND


def log_likelihood(
    schedule: Schedule, e_KD: Tensor, mask_D: Tensor, z_BND: Tensor, t: Tensor, dropped_B: Tensor
) -> Tensor:
    """log q(z_t | x_i = k) of each token, up to a constant in k: float32 (B, N, K). Section 3.

    A token's embedding is [mask] with probability `dropped_B`, so q is a mixture of two Gaussians. Where z_i is near
    [mask], all codes have the same likelihood.
    """
    log_snr = schedule.log_snr(t)
    # log N(z; alpha e, sigma^2 I) = (alpha z.e - alpha^2 |e|^2 / 2) / sigma^2 + a constant.
    along, own = _wide(log_snr.exp() / schedule.alpha(t), z_BND), _wide(log_snr.exp() / 2, z_BND)
    with autocast(z_BND.device.type, enabled=False):
        kept_BNK = along * (z_BND @ e_KD.T) - own * e_KD.square().sum(dim=1)
        mask_BN1 = along * (z_BND @ mask_D)[..., None] - own * mask_D.square().sum()
        share = dropped_B.float()[:, None, None]
        return torch.logaddexp(kept_BNK + torch.log1p(-share), mask_BN1 + share.log())


def prior_kl(schedule: Schedule, psi_BND: Tensor) -> Tensor:
    """KL(q(z_end | x) || N(0, I)), summed over D, averaged over tokens: (B,), nats."""
    t = torch.full((len(psi_BND),), schedule.end, dtype=torch.float64, device=psi_BND.device)
    variance = _wide(schedule.sigma(t) ** 2, psi_BND)
    squares = _wide(schedule.alpha(t) ** 2, psi_BND) * psi_BND**2
    return 0.5 * (squares + variance - 1 - variance.log()).sum(dim=2).mean(dim=1)


def _wide(coefficient: Tensor, like: Tensor) -> Tensor:
    return coefficient.to(like.dtype)[:, None, None]
