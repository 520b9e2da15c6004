"""Statistics that show whether the embedding table collapses. Section 7 of docs/method.md.

Shapes: K codes, D embedding size, R rows of a block. Memory is bounded: distances are computed in blocks of at most
`BLOCK` of them.
"""

import math

import torch
from torch import Tensor

from vqlcmd.diffusion import gaussian
from vqlcmd.diffusion.schedule import Schedule
from vqlcmd.rng import CounterRNG

DECODABLE_AT = (-4, -2, 0, 2, 4)
"""Values of log SNR at which nearest-neighbour decoding is tried."""
BLOCK = 2**24
"""Distances per block: 64 MB. A table of up to 4,096 codes is one block."""
BUFFERS = 4
"""Peak memory of computing one block of distances, in blocks."""


def statistics(table_KD: Tensor, schedule: Schedule, rng: CounterRNG) -> dict[str, float]:
    """{name: value} of `geometry`, and the fraction of codes that are `decodable` at each of `DECODABLE_AT`.

    `rng` has K rows, one per code.
    """
    found = geometry(table_KD)
    eps_KD = rng.normal("decodable", table_KD.shape[1])
    for log_snr in DECODABLE_AT:
        found[f"decodable_{log_snr}"] = decodable(table_KD, schedule, log_snr, eps_KD)
    return found


def geometry(table_KD: Tensor) -> dict[str, float]:
    """{name: value} of norms, distances and effective rank of a table (K, D)."""
    norms = table_KD.norm(dim=1)
    mean, least = pairwise_distances(table_KD.float())
    return {
        "embedding_norm": float(norms.mean()),
        "embedding_norm_std": float(norms.std()),
        "embedding_distance": mean,
        "embedding_distance_min": least,
        "embedding_rank": effective_rank(table_KD),
    }


def pairwise_distances(table_KD: Tensor) -> tuple[float, float]:
    """Mean and minimum of |e_i - e_j| over pairs i < j of rows, computed in blocks.

    The closest rows of two different blocks are found by torch.cdist, whose matrix products round; their distance is
    then computed again from the difference.
    """
    blocks, pairs = table_KD.split(math.isqrt(BLOCK)), len(table_KD) * (len(table_KD) - 1) // 2
    mean, least = 0.0, math.inf
    for first, rows_RD in enumerate(blocks):
        for columns_RD in blocks[first:]:
            if columns_RD is rows_RD:
                distances = torch.pdist(rows_RD)
                closest = distances.min() if len(rows_RD) > 1 else distances.new_tensor(math.inf)
            else:
                distances = torch.cdist(rows_RD, columns_RD)
                row, column = divmod(int(distances.argmin()), len(columns_RD))
                closest = (rows_RD[row] - columns_RD[column]).norm()
            # With a single block the factor is 1, so the mean is exact to the bit.
            mean += float(distances.mean()) * (distances.numel() / pairs) if distances.numel() else 0.0
            least = min(least, float(closest))
    return mean, least


def statistics_memory(codes: int) -> int:
    """Bytes that `statistics` needs for a table of `codes` rows, in addition to the table."""
    return 4 * BUFFERS * min(codes**2, BLOCK)


def effective_rank(table_KD: Tensor) -> float:
    """exp of the entropy of the normalised squared singular values of the centred table; 0 where all rows are equal."""
    squares = torch.linalg.svdvals(table_KD.double() - table_KD.double().mean(dim=0)) ** 2
    if squares.sum() == 0:
        return 0.0
    shares = squares / squares.sum()
    return float(torch.special.entr(shares).sum().exp())


def decodable(table_KD: Tensor, schedule: Schedule, log_snr: float, eps_KD: Tensor) -> float:
    """Fraction of codes k whose noised embedding is nearest to its own alpha_t e_k, at this log SNR."""
    t = schedule.time(torch.full((len(table_KD),), float(log_snr), device=table_KD.device))
    z_KD = gaussian.diffuse(schedule, table_KD[:, None], t, eps_KD[:, None])[:, 0]
    means_KD = schedule.alpha(t)[:, None].to(table_KD.dtype) * table_KD
    rows = max(BLOCK // len(table_KD), 1)
    nearest = torch.cat([torch.cdist(z_RD, means_KD).argmin(dim=1) for z_RD in z_KD.split(rows)])
    return float((nearest == torch.arange(len(table_KD), device=table_KD.device)).float().mean())
