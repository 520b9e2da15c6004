"""Mean and covariance of features that come in batches: what the Fréchet distance compares, in constant memory.

Shapes: n features of size D.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.paths import experiment_remedy


@dataclass(frozen=True)
class Statistics:
    """`mean` (D,) and `covariance` (D, D) in float64 of `count` images; `count` is 0 where a file does not say."""

    mean: Tensor
    covariance: Tensor
    count: int


class Moments:
    """Accumulates the first two moments of features batch by batch, float64 on the CPU (Chan, Golub, LeVeque 1979)."""

    def __init__(self) -> None:
        self.count, self._mean, self._scatter = 0, torch.zeros(0), torch.zeros(0)

    def add(self, features: Tensor) -> None:
        """Add the features (n, D) of more images; n may be 0."""
        if not len(features):
            return
        batch = features.double().cpu()
        if not self.count:
            size = batch.shape[1]
            self._mean, self._scatter = (torch.zeros(*shape, dtype=torch.float64) for shape in ((size,), (size, size)))
        mean = batch.mean(dim=0)
        self._join(len(batch), mean, batch - mean)

    def merge(self, other: "Moments") -> None:
        """Add the images that were added to `other`."""
        if not self.count:
            self.count, self._mean, self._scatter = other.count, other._mean.clone(), other._scatter.clone()
        elif other.count:
            self._scatter += other._scatter
            self._join(other.count, other._mean, other._mean.new_zeros(0, len(other._mean)))

    def _join(self, count: int, mean: Tensor, centred: Tensor) -> None:
        """Add `count` images with this mean; `centred` (n, D) adds their scatter, unless it has been added already."""
        away, total = mean - self._mean, self.count + count
        # The difference of the means is one more row of a single product: one pass over the D x D scatter, not five.
        rows = torch.cat([centred, away[None] * (self.count * count / total) ** 0.5])
        self._scatter.addmm_(rows.T, rows)
        self._mean += away * (count / total)
        self.count = total

    def statistics(self) -> Statistics | None:
        """Statistics of all images so far, with n - 1 in the covariance; None for fewer than two images."""
        if self.count < 2:
            return None
        return Statistics(self._mean, self._scatter / (self.count - 1), self.count)

    def state_dict(self) -> dict[str, Tensor | int]:
        """The state, for a run that is resumed later."""
        return {"count": self.count, "mean": self._mean, "scatter": self._scatter}

    def load_state_dict(self, saved: dict[str, Tensor | int]) -> None:
        """Continue from a state by `state_dict`."""
        count, mean, scatter = saved["count"], saved["mean"], saved["scatter"]
        assert isinstance(count, int), count
        assert isinstance(mean, Tensor), mean
        assert isinstance(scatter, Tensor), scatter
        self.count, self._mean, self._scatter = count, mean, scatter


def read_statistics(path: Path) -> Statistics:
    """Statistics from an .npz file with `mu` and `sigma`, as ADM, pytorch-fid and others publish them; `count` is 0.

    DataError for anything else.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            mean, covariance = (torch.from_numpy(np.asarray(file[name], dtype=np.float64)) for name in ("mu", "sigma"))
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing: reference.statistics names it; null takes the images' own{experiment_remedy(path)}"
        ) from None
    except (KeyError, ValueError, OSError, EOFError, BadZipFile, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is no .npz file with mu and sigma ({reason}): see reference.statistics") from None
    size = mean.shape[-1] if mean.dim() else 0
    if mean.shape != (size,) or covariance.shape != (size, size):
        shapes = f"mu {tuple(mean.shape)}, sigma {tuple(covariance.shape)}"
        raise DataError(f"{path}: {shapes}, but they should be (D,) and (D, D)")
    if not (mean.isfinite().all() and covariance.isfinite().all()) or not torch.allclose(covariance, covariance.T):
        raise DataError(f"{path}: mu and sigma should be finite, and sigma symmetric")
    return Statistics(mean, covariance, 0)
