"""How the diffusion term is spread over time: where times are drawn, and what a term counts there."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vqlcmd.diffusion.schedule import Schedule


@dataclass(frozen=True)
class Simple:
    """Uniform times, all alike: the paper's L_diff, section 4."""

    schedule: Schedule

    def time(self, u: Tensor) -> Tensor:
        """u in (0, 1) to times, float64."""
        return self.schedule.between(u)

    def weight(self, t: Tensor) -> Tensor:
        """1 at every time: (B,)."""
        return torch.ones_like(t)


@dataclass(frozen=True)
class Vlb:
    """Equation 2, -1/2 E_t[SNR'(t) |.|^2], with log SNR drawn uniformly: uniform times would make rare spikes."""

    schedule: Schedule

    def time(self, u: Tensor) -> Tensor:
        """u in (0, 1) to times at which log SNR is uniform between its ends, float64."""
        spread = self.schedule.log_snr_max - self.schedule.log_snr_min
        return self.schedule.time(self.schedule.log_snr_max - spread * u.double())

    def weight(self, t: Tensor) -> Tensor:
        """SNR(t) / 2 times the range of log SNR: (B,)."""
        return 0.5 * (self.schedule.log_snr_max - self.schedule.log_snr_min) * self.schedule.log_snr(t).exp()


WEIGHTINGS: dict[str, type[Simple] | type[Vlb]] = {"simple": Simple, "vlb": Vlb}
