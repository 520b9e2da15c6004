"""Is the embedding table alive? Section 7 of docs/method.md. Shapes: K codes, D embedding size."""

import torch
from torch import Tensor

from vqlcmd.diffusion import gaussian
from vqlcmd.diffusion.schedule import Schedule
from vqlcmd.rng import CounterRNG

DECODABLE_AT = (-4, -2, 0, 2, 4)
"""Values of log SNR at which nearest-neighbour decoding is tried."""


def statistics(table_KD: Tensor, schedule: Schedule, rng: CounterRNG) -> dict[str, float]:
    """`geometry`, and the share of codes that are their own nearest neighbour under noise.

    `noise` has K rows, one per code.
    """
    found = geometry(table_KD)
    eps_KD = rng.normal("decodable", table_KD.shape[1])
    for log_snr in DECODABLE_AT:
        found[f"decodable_{log_snr}"] = decodable(table_KD, schedule, log_snr, eps_KD)
    return found


def geometry(table_KD: Tensor) -> dict[str, float]:
    """Norms, distances and effective rank of a table."""
    norms = table_KD.norm(dim=1)
    distances = torch.pdist(table_KD.float())
    return {
        "embedding_norm": float(norms.mean()),
        "embedding_norm_std": float(norms.std()),
        "embedding_distance": float(distances.mean()),
        "embedding_distance_min": float(distances.min()),
        "embedding_rank": effective_rank(table_KD),
    }


def effective_rank(table_KD: Tensor) -> float:
    """exp of the entropy of the normalised squared singular values of the centred table; 0 for a table of one point."""
    crop_views = torch.linalg.svdvals(table_KD.double() - table_KD.double().mean(dim=0)) ** 2
    if crop_views.sum() == 0:
        return 0.0
    shares = crop_views / crop_views.sum()
    return float(torch.special.entr(shares).sum().exp())


def decodable(table_KD: Tensor, schedule: Schedule, log_snr: float, eps_KD: Tensor) -> float:
    """Share of codes whose noised embedding lies nearest to its own alpha_t e_k, at this log SNR."""
    t = schedule.time(torch.full((len(table_KD),), float(log_snr), device=table_KD.device))
    z_KD = gaussian.diffuse(schedule, table_KD[:, None], t, eps_KD[:, None])[:, 0]
    means_KD = schedule.alpha(t)[:, None].to(table_KD.dtype) * table_KD
    nearest = torch.cdist(z_KD, means_KD).argmin(dim=1)
    return float((nearest == torch.arange(len(table_KD), device=table_KD.device)).float().mean())
