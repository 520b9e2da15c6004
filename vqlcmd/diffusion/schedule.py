"""The noise schedule: log SNR(t), and what follows from it. Section 2 of docs/method.md."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule:
    """The cosine schedule moved by `shift`: log SNR(t) = -2 log tan(pi t / 2) + shift, t in (0, 1), 0 clean.

    Its ends are values of log SNR, not times, and so do not depend on the shift: t runs from `start` (log_snr_max,
    nearly clean) to `end` (log_snr_min, nearly noise). Arithmetic is float64: in float32 the ends overflow.
    """

    shift: float
    log_snr_min: float
    log_snr_max: float

    @cached_property
    def start(self) -> float:
        """The earliest time, nearly clean."""
        return float(self.time(torch.tensor(self.log_snr_max, dtype=torch.float64)))

    @cached_property
    def end(self) -> float:
        """The latest time, nearly noise."""
        return float(self.time(torch.tensor(self.log_snr_min, dtype=torch.float64)))

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) at times t, float64."""
        return -2 * torch.log(torch.tan(t.double() * (math.pi / 2))) + self.shift

    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse of log_snr, float64."""
        return torch.atan(torch.exp((self.shift - log_snr.double()) / 2)) * (2 / math.pi)

    def between(self, u: Tensor) -> Tensor:
        """Times for u in [0, 1], linear between `start` and `end`: float64."""
        return self.start + (self.end - self.start) * u.double()

    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the signal, float64; alpha^2 + sigma^2 = 1."""
        return torch.sigmoid(self.log_snr(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """Scale of the noise, float64."""
        return torch.sigmoid(-self.log_snr(t)).sqrt()
