"""Precision and recall: the fraction of generated images that lie among the real ones, and the reverse."""

import torch
from torch import Tensor

from vqlcmd.evaluation import distances as pieces
from vqlcmd.evaluation.comparison import Comparison, Measure
from vqlcmd.precision import full_precision

FEATURES = "precision_features"
FEW = 1000
"""With fewer images, recall depends mostly on the size of the neighbourhoods."""


def measure(comparison: Comparison) -> dict[str, Measure]:
    """`precision` and `recall`, with a note for few images; None, with a note, for too few."""
    k = comparison.settings.neighbours
    generated, real = comparison.generated.precision_features, comparison.real.precision_features
    counts = f"{len(generated):,} generated and {len(real):,} real images"
    if min(len(generated), len(real)) <= k:
        missing = Measure(None, f"{counts}: both have to be more than evaluate.neighbours {k}")
        return {"precision": missing, "recall": missing}
    precision, recall = precision_recall(generated, real, k, comparison.device)
    few = min(len(generated), len(real)) < FEW
    note = f"{counts}: both change with these numbers, and so few say little" if few else ""
    return {"precision": Measure(precision, note), "recall": Measure(recall, note)}


@full_precision()
def precision_recall(
    generated: Tensor, real: Tensor, k: int = 3, device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Precision: fraction of generated images within reach of a real one; recall: the reverse; both in 0..1.

    An image's reach is the distance to its k-th nearest neighbour in its own set. Features are (n, D) and (m, D), more
    than k of each. Both values depend on n and m. Kynkäänniemi et al. 2019; the same numbers as torch-fidelity's
    `metric_prc`, which runs only on the CPU and computes the distances between the sets twice.
    """
    assert min(len(generated), len(real)) > k, (len(generated), len(real), k)
    generated, real = generated.to(device), real.to(device)
    # In chunks: all distances at once would take 10 GiB for 50,000 images. k + 1, since each image is its own nearest.
    generated_reach, real_reach = (
        torch.cat(
            [pieces.distances(rows, each).topk(k + 1, largest=False).values[:, k] for rows in each.split(pieces.CHUNK)]
        )
        for each in (generated, real)
    )
    precise = torch.zeros(len(generated), dtype=torch.bool, device=device)
    recalled = []
    for rows, reach in zip(real.split(pieces.CHUNK), real_reach.split(pieces.CHUNK), strict=True):
        between = pieces.distances(rows, generated)
        precise |= (between <= reach[:, None]).any(dim=0)
        recalled.append((between <= generated_reach).any(dim=1))
    return precise.double().mean().item(), torch.cat(recalled).double().mean().item()
