"""The interface of a method: train on tokens, sample tokens, and measure a trained model."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqlcmd.params import Sampling
from vqlcmd.params.types import Section
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError


class Method(nn.Module, ABC):
    """A generative model of N = `tokens` tokens, with `classes` classes (0 for none).

    `weights` maps the name of each loss term that `forward` returns to its weight. Shapes: B images, K codes.
    """

    tokens: int
    classes: int
    class_drop: float
    weights: dict[str, float]
    grid: tuple[int, ...] | None = None
    """Rows and columns of the token grid; set where a trained model is loaded."""

    betas: ClassVar[tuple[float, float]] = (0.9, 0.99)
    """AdamW's betas where `train.betas` is null."""
    weight_decay: ClassVar[float] = 0.01
    """AdamW's weight decay where `train.weight_decay` is null."""
    samplers: ClassVar[tuple[str, ...]] = ("ancestral",)
    """Valid values of `sampler`."""
    knobs: ClassVar[type[Section]] = Section
    """Sampling parameters that only this method has, with ranges and descriptions: `sample.METHOD` in params.yaml."""
    built_by: ClassVar[tuple[str, ...]]
    """Dotted keys or sections of params.yaml that the trained model, its samples or its bound depend on, and that its
    file must therefore contain. All others affect training only."""
    schedules: ClassVar[Mapping[str, Any]] = {}
    """If the method masks or replaces tokens, SCHEDULES of its module: valid values of `discrete.schedule.METHOD`."""
    supports_inpainting: ClassVar[bool] = True
    """Whether `sample` can hold tokens fixed."""

    @abstractmethod
    def forward(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, teacher: Any) -> dict[str, Tensor]:
        """Loss terms per image, unweighted: {name: (B,)}. `teacher` is this model's moving average."""

    @abstractmethod
    def sample(self, label: Tensor | None, rng: CounterRNG, how: Sampling, known: Tensor | None = None) -> Tensor:
        """Tokens (B, N) int64 for classes (B,), one image for each row of `rng`. ConfigError as in `check`.

        `known` (B, N) int64 holds the given tokens, and -1 where a token is to be drawn.
        """

    def steps(self, how: Sampling) -> int:
        """Number of sampling steps."""
        return how.steps

    @abstractmethod
    def nfe(self, how: Sampling) -> int:
        """Passes through the network that one image costs."""

    @abstractmethod
    def bound(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, levels: int) -> Tensor:
        """An upper bound on -log p(x), nats per token: (B,)."""

    @abstractmethod
    def diagnostics(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG) -> dict[str, float]:
        """{name: value} of the metrics to watch during training. Section 7 of docs/method.md."""

    @abstractmethod
    def alpha_bar(self, u: Tensor) -> Tensor:
        """Fraction of the signal that remains at the fraction u in [0, 1] of the way to noise: shape of u, float64."""

    @abstractmethod
    def embedding_parameters(self) -> Iterable[nn.Parameter]:
        """The parameters whose learning rate is multiplied by `train.embedding_lr_scale`."""

    @property
    @abstractmethod
    def table(self) -> Tensor:
        """The vectors (K, D) that stand for the codes."""

    def check(self, how: Sampling, infill: bool = False) -> None:
        """ConfigError where this method cannot sample as `how` says or, with `infill`, cannot hold tokens fixed."""
        name = type(self).__name__
        if how.steps < 1:
            raise ConfigError(f"steps is {how.steps}, but must be 1 or more")
        if not 0 <= how.guidance < math.inf:
            raise ConfigError(f"guidance is {how.guidance:g}, but must be a number from 0")
        if how.sampler not in self.samplers:
            raise ConfigError(f"sampler {how.sampler} is not one of {name}'s: set it to {' or '.join(self.samplers)}")
        if infill and not self.supports_inpainting:
            raise ConfigError(
                f"{name} draws tokens in raster order and cannot hold others fixed: choose another method"
            )

    def learn_from(self, teacher: Any, steps: int) -> None:
        """From now on `forward` distils `teacher`, a frozen model of this kind, whose sampler takes `steps` steps.

        This model starts from the weights of `teacher`. ConfigError where this method cannot be distilled.
        """
        raise ConfigError(f"{type(self).__name__} cannot be distilled, only LCMD can: set distill.teacher to null")

    def finish_step(self) -> None:
        """Hook, called once per training step after all `forward` calls and before the optimizer's step."""

    def drop_classes(self, label: Tensor | None, rng: CounterRNG) -> Tensor | None:
        """`label` with each class replaced by the null class with probability `class_drop`, which guidance needs."""
        if label is None:
            return None
        return torch.where(rng.uniform("class_drop") < self.class_drop, self.classes, label)
