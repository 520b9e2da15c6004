"""Noise schedules: log SNR(t), and what follows from it. Section 2 of docs/method.md.

A new schedule is a class here and an entry in SCHEDULES, which has the valid values of `schedule.name` in params.yaml.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Schedule(ABC):
    """log SNR(t), which falls as t rises from 0 (clean) to 1 (noise); `shift` is `s` in params.yaml.

    The schedule's ends are values of log SNR, not times, and so do not depend on the shift: t runs from `start`
    (log_snr_max, nearly clean) to `end` (log_snr_min, nearly noise). Arithmetic is float64: in float32 the ends
    overflow.
    """

    shift: float
    log_snr_min: float
    log_snr_max: float

    @abstractmethod
    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) at times t, float64."""

    @abstractmethod
    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse of log_snr, float64."""

    @cached_property
    def start(self) -> float:
        """The earliest time, nearly clean."""
        return float(self.time(torch.tensor(self.log_snr_max, dtype=torch.float64)))

    @cached_property
    def end(self) -> float:
        """The latest time, nearly noise."""
        return float(self.time(torch.tensor(self.log_snr_min, dtype=torch.float64)))

    def between(self, u: Tensor) -> Tensor:
        """Times for u in [0, 1], linear between `start` and `end`: float64."""
        return self.start + (self.end - self.start) * u.double()

    def alpha(self, t: Tensor) -> Tensor:
        """Scale of the signal, float64; alpha^2 + sigma^2 = 1."""
        return torch.sigmoid(self.log_snr(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """Scale of the noise, float64."""
        return torch.sigmoid(-self.log_snr(t)).sqrt()


@dataclass(frozen=True)
class Cosine(Schedule):
    """log SNR(t) = -2 log tan(pi t / 2) + shift: alpha = cos(pi t / 2) where the shift is 0, more noise below it."""

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) at times t, float64."""
        return -2 * torch.log(torch.tan(t.double() * (math.pi / 2))) + self.shift

    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse of log_snr, float64."""
        return torch.atan(torch.exp((self.shift - log_snr.double()) / 2)) * (2 / math.pi)


@dataclass(frozen=True)
class Linear(Schedule):
    """log SNR(t) = log_snr_max - (log_snr_max - log_snr_min) t: equal time for every unit of log SNR.

    ValueError for a shift other than 0, since the two ends already determine the line.
    """

    def __post_init__(self) -> None:
        if self.shift:
            raise ValueError(f"`schedule.name: linear` has no shift, and s is {self.shift:g}: set s to 0")

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) at times t, float64."""
        return self.log_snr_max - (self.log_snr_max - self.log_snr_min) * t.double()

    def time(self, log_snr: Tensor) -> Tensor:
        """The inverse of log_snr, float64."""
        return (self.log_snr_max - log_snr.double()) / (self.log_snr_max - self.log_snr_min)


SCHEDULES: dict[str, type[Schedule]] = {"cosine": Cosine, "linear": Linear}


def build_schedule(name: str, shift: float, log_snr_min: float, log_snr_max: float) -> Schedule:
    """The schedule `name`. ValueError where it does not support the shift."""
    return SCHEDULES[name](shift, log_snr_min, log_snr_max)
