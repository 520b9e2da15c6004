"""Fréchet distance (FID): how far mean and covariance of the features are from those of the real images."""

from vqlcmd.evaluation.comparison import Comparison, Measure
from vqlcmd.evaluation.frechet import frechet_distance

FEATURES = "features"
ENOUGH = 2048
"""With fewer images, a Fréchet distance gets a note: as many as Inception has features."""


def measure(comparison: Comparison) -> dict[str, Measure]:
    """`fid`, with a note where few images bias it; None, with a note, where there are fewer than two."""
    generated, real = comparison.generated, comparison.real
    if generated.statistics is None or real.statistics is None:
        which, count = ("generated", generated.count) if generated.statistics is None else ("real", real.count)
        return {"fid": Measure(None, f"{count} {which} images have no covariance: at least 2 are needed")}
    return {"fid": Measure(frechet_distance(generated.statistics, real.statistics), _caution(comparison))}


def _caution(comparison: Comparison) -> str:
    sides = {"generated": comparison.generated.count, "real": comparison.real.count}
    size = comparison.generated.features.shape[1]
    few = [f"{count:,} {name}" for name, count in sides.items() if count is not None and count < max(ENOUGH, size)]
    if not few:
        return ""
    return (
        f"few images ({' and '.join(few)}) for {size:,} features: biased upwards; "
        "compare with sets of the same size only"
    )
