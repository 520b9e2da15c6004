"""How the diffusion term is spread over time: where times are drawn, and what a term counts there."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from vqlcmd.diffusion.schedule import Schedule

BINS = 100
"""Of the cross-entropy as a function of time, as CDCD has."""


class Weighting(nn.Module, ABC):
    """Times for training and for sampling, and what a term counts at each."""

    learns = False
    """Whether it has an `error` to be trained with."""

    def __init__(self, schedule: Schedule):
        super().__init__()
        self.schedule = schedule

    @abstractmethod
    def time(self, u: Tensor) -> Tensor:
        """u in (0, 1) to times of training, float64."""

    @abstractmethod
    def weight(self, t: Tensor) -> Tensor:
        """What the diffusion term counts: (B,)."""

    def steps(self, u: Tensor) -> Tensor:
        """u in [0, 1] to times of sampling, float64."""
        return self.schedule.between(u)

    def error(self, t: Tensor, nats: Tensor) -> Tensor:
        """Squared error (B,) of the cross-entropy that it expects at times t (B,)."""
        return torch.zeros_like(nats)


class Simple(Weighting):
    """Uniform times, all alike: the paper's L_diff, section 4."""

    def time(self, u: Tensor) -> Tensor:
        """u in (0, 1) to times, float64."""
        return self.schedule.between(u)

    def weight(self, t: Tensor) -> Tensor:
        """1 at every time: (B,)."""
        return torch.ones_like(t)


class Vlb(Weighting):
    """Equation 2, -1/2 E_t[SNR'(t) |.|^2], with log SNR drawn uniformly: uniform times would make rare spikes."""

    def time(self, u: Tensor) -> Tensor:
        """u in (0, 1) to times at which log SNR is uniform between its ends, float64."""
        spread = self.schedule.log_snr_max - self.schedule.log_snr_min
        return self.schedule.time(self.schedule.log_snr_max - spread * u.double())

    def weight(self, t: Tensor) -> Tensor:
        """SNR(t) / 2 times the range of log SNR: (B,)."""
        return 0.5 * (self.schedule.log_snr_max - self.schedule.log_snr_min) * self.schedule.log_snr(t).exp()


class Warped(Weighting):
    """Times at which the cross-entropy grows evenly, learned on the way (CDCD's time warping).

    F(v), the cross-entropy at the share v of the way to noise, is a line over each of `BINS` parts, rising in all.
    """

    learns = True

    def __init__(self, schedule: Schedule):
        super().__init__(schedule)
        self.log_rise = nn.Parameter(torch.full((BINS,), 1 / BINS).log())

    def time(self, u: Tensor) -> Tensor:
        """F(v) / F(1) = u, float64."""
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
        """F at the ends of the parts: (BINS + 1,) float64, from 0."""
        return nn.functional.pad(self.log_rise.double().exp().cumsum(dim=0), (1, 0))


WEIGHTINGS: dict[str, type[Weighting]] = {"simple": Simple, "vlb": Vlb, "warped": Warped}
