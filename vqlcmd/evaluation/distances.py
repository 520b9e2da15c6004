"""Euclidean distances between features, in pieces that fit in memory.

Shapes: n rows, m others, D features.
"""

import torch
from torch import Tensor

from vqlcmd.precision import full_precision

CHUNK = 1500
"""Rows of distances at a time."""
_COLUMNS = 10_000


def distances(rows: Tensor, others: Tensor) -> Tensor:
    """Distances (n, m), computed in blocks of columns, since torch.cdist copies its second argument."""
    return torch.cat([torch.cdist(rows, part) for part in others.split(_COLUMNS)], dim=1)


@full_precision()
def nearest(rows: Tensor, others: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Distance (n,) from each row to the nearest of `others`, and the index (n,) of that one, both on the CPU."""
    others = others.to(device)
    found = []
    for part in rows.split(CHUNK):
        here = part.to(device)
        index = distances(here, others).argmin(dim=1)
        # torch.cdist multiplies matrices, whose rounding gives equal rows a distance above 0.
        found.append(((here - others[index]).norm(dim=1).cpu(), index.cpu()))
    if not found:
        return torch.empty(0), torch.empty(0, dtype=torch.int64)
    one, two = zip(*found, strict=True)
    return torch.cat(one), torch.cat(two)
