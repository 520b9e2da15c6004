"""What a noisy embedding says of its own token: log q(z_t | x). Section 3 of docs/method.md.

Shapes: B images, N tokens, D embedding size, K codes.
"""

import torch
from torch import Tensor

from vqlcmd.diffusion.embedding import Embedding
from vqlcmd.diffusion.schedule import Schedule
from vqlcmd.runtime.machine import autocast


def log_likelihood(schedule: Schedule, embedding: Embedding, z_BND: Tensor, t: Tensor, dropped_B: Tensor) -> Tensor:
    """log q(z_i | x_i = k) up to a constant in k: float32 (B, N, K).

    A token's embedding is [mask] with probability `dropped_B`, so q is a mixture of two Gaussians. Where z_i is near
    [mask], all codes have the same likelihood.
    """
    log_snr = schedule.log_snr(t)
    # log N(z; alpha e, sigma^2 I) = (alpha z.e - alpha^2 |e|^2 / 2) / sigma^2 + a constant.
    products = torch.exp(log_snr) / schedule.alpha(t), torch.exp(log_snr) / 2
    along, own = (each.to(z_BND.dtype)[:, None, None] for each in products)
    with autocast(z_BND.device.type, enabled=False):
        kept_BNK = along * (z_BND @ embedding.table.T) - own * embedding.table.square().sum(dim=1)
        mask_BN1 = along * (z_BND @ embedding.mask)[..., None] - own * embedding.mask.square().sum()
        share = dropped_B.float()[:, None, None]
        # Where nothing is dropped, log 0 would make the gradient of [mask] NaN.
        inside = torch.where(share > 0, share, 0.5)
        mixed_BNK = torch.logaddexp(kept_BNK + torch.log1p(-inside), mask_BN1 + inside.log())
        return torch.where(share > 0, mixed_BNK, kept_BNK)
