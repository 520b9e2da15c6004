"""How the diffusion term is distributed over time: how times are drawn, and the weight of the term at each."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from vqlcmd.diffusion.schedule import Schedule

BINS = 100
"""Intervals of the piecewise linear cross-entropy F, as many as in CDCD."""


class Weighting(nn.Module, ABC):
    """Times for training and for sampling, and the weight of the diffusion term at each."""

    learns = False
    """Whether it has parameters, which the term `error` trains."""

    def __init__(self, schedule: Schedule):
        super().__init__()
        self.schedule = schedule

    @abstractmethod
    def time(self, u: Tensor) -> Tensor:
        """Training times (B,) float64 for u (B,) in (0, 1)."""

    @abstractmethod
    def weight(self, t: Tensor) -> Tensor:
        """Weight of the diffusion term at times t (B,): (B,)."""

    def steps(self, u: Tensor) -> Tensor:
        """Sampling times, float64, for u in [0, 1]."""
        return self.schedule.between(u)

    def error(self, t: Tensor, nats: Tensor) -> Tensor:
        """Squared error (B,) of the expected cross-entropy at times t (B,) against `nats` (B,); 0 if nothing learns."""
        return torch.zeros_like(nats)


class Simple(Weighting):
    """Uniform times with weight 1: the paper's L_diff, section 4."""

    def time(self, u: Tensor) -> Tensor:
        """u in (0, 1) to times, float64."""
        return self.schedule.between(u)

    def weight(self, t: Tensor) -> Tensor:
        """1 at every time: (B,)."""
        return torch.ones_like(t)


class Vlb(Weighting):
    """The bound's weight, -1/2 E_t[SNR'(t) |.|^2] in equation 2, with log SNR drawn uniformly.

    Uniform times estimate the same integral, but with rare spikes.
    """

    def time(self, u: Tensor) -> Tensor:
        """u in (0, 1) to times at which log SNR is uniform between its ends, float64."""
        spread = self.schedule.log_snr_max - self.schedule.log_snr_min
        return self.schedule.time(self.schedule.log_snr_max - spread * u.double())

    def weight(self, t: Tensor) -> Tensor:
        """SNR(t) / 2 times the range of log SNR: (B,)."""
        return 0.5 * (self.schedule.log_snr_max - self.schedule.log_snr_min) * self.schedule.log_snr(t).exp()


class Warped(Weighting):
    """Times at which the cross-entropy grows evenly, learned during training (CDCD's time warping). Section 4.

    F(v), the cross-entropy at the fraction v of the way to noise, is increasing and piecewise linear on `BINS` equal
    intervals.
    """

    learns = True

    def __init__(self, schedule: Schedule):
        super().__init__(schedule)
        self.log_rise = nn.Parameter(torch.full((BINS,), 1 / BINS).log())

    def time(self, u: Tensor) -> Tensor:
        """Times whose fractions v satisfy F(v) / F(1) = u, float64."""
        heights = self._heights().detach()
        wanted = u.double() * heights[-1]
        part = torch.searchsorted(heights[1:], wanted).clamp_max(BINS - 1)
        low, high = heights[part], heights[part + 1]
        return self.schedule.between((part + (wanted - low) / (high - low)).clamp(0, BINS) / BINS)

    def weight(self, t: Tensor) -> Tensor:
        """1 at every time: (B,)."""
        return torch.ones_like(t)

    def steps(self, u: Tensor) -> Tensor:
        return self.time(u)

    def error(self, t: Tensor, nats: Tensor) -> Tensor:
        heights = self._heights()
        place = BINS * (t - self.schedule.start) / (self.schedule.end - self.schedule.start)
        part = place.floor().long().clamp(0, BINS - 1)
        expected = heights[part] + (place - part) * (heights[part + 1] - heights[part])
        return (expected.to(nats.dtype) - nats).square()

    def _heights(self) -> Tensor:
        """F at the ends of the intervals: (BINS + 1,) float64, from 0."""
        return nn.functional.pad(self.log_rise.double().exp().cumsum(dim=0), (1, 0))


WEIGHTINGS: dict[str, type[Weighting]] = {"simple": Simple, "vlb": Vlb, "warped": Warped}
