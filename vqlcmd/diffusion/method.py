"""What a method is: two verbs, train on tokens and sample tokens, and what there is to know about a trained one."""

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
    """Rows and columns of the tokens, of a model that was loaded from its file."""

    betas: ClassVar[tuple[float, float]] = (0.9, 0.99)
    """AdamW's, where `train.betas` is null."""
    weight_decay: ClassVar[float] = 0.01
    """AdamW's, where `train.weight_decay` is null."""
    samplers: ClassVar[tuple[str, ...]] = ("ancestral",)
    """What `sampler` can be."""
    knobs: ClassVar[type[Section]] = Section
    """What else its sampling takes, with ranges and a description each: `sample.METHOD` in params.yaml."""
    built_by: ClassVar[tuple[str, ...]]
    """Dotted keys, or sections, of params.yaml that shape the trained model, its samples or its bound: what its file
    must say. All others are of training alone."""
    schedules: ClassVar[Mapping[str, Any]] = {}
    """Of a method that masks or replaces tokens: SCHEDULES of its file, by name, for `discrete.schedule.METHOD`."""
    supports_inpainting: ClassVar[bool] = True
    """Whether `sample` can hold tokens fixed."""

    @abstractmethod
    def forward(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, teacher: Any) -> dict[str, Tensor]:
        """Loss terms per image, unweighted: {name: (B,)}. `teacher` is this model's moving average."""

    @abstractmethod
    def sample(self, label: Tensor | None, rng: CounterRNG, how: Sampling, known: Tensor | None = None) -> Tensor:
        """Tokens (B, N) int64 for classes (B,), one row of `noise` for each image.

        `known` (B, N) int64 holds tokens that are given, and -1 where one is to be drawn.
        """

    def steps(self, how: Sampling) -> int:
        """Steps that sampling takes."""
        return how.steps

    @abstractmethod
    def nfe(self, how: Sampling) -> int:
        """Passes through the network that one image costs."""

    @abstractmethod
    def bound(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, levels: int) -> Tensor:
        """An upper bound on -log p(x), nats per token: (B,)."""

    @abstractmethod
    def diagnostics(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG) -> dict[str, float]:
        """What to watch during training."""

    @abstractmethod
    def alpha_bar(self, u: Tensor) -> Tensor:
        """Share of the signal that is left at the share u in [0, 1] of the way from clean to noise: like u, float64."""

    @abstractmethod
    def embedding_parameters(self) -> Iterable[nn.Parameter]:
        """What `train.embedding_lr_scale` applies to."""

    @property
    @abstractmethod
    def table(self) -> Tensor:
        """The vectors (K, D) that stand for the codes."""

    def check(self, how: Sampling, infill: bool = False) -> None:
        """ConfigError where this method cannot sample so."""
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
        """From now on `forward` distils `teacher`, a frozen model like this one, whose sampler takes `steps` steps.

        This model begins with its weights. ConfigError where this method cannot be distilled.
        """
        raise ConfigError(f"{type(self).__name__} cannot be distilled, only LCMD can: set distill.teacher to null")

    def finish_step(self) -> None:
        """Called once after the `forward` calls of a training step, before the optimiser: nothing to do for most."""

    def drop_classes(self, label: Tensor | None, rng: CounterRNG) -> Tensor | None:
        """`label` with a share `class_drop` of it made null, which trains the unconditional model of guidance."""
        if label is None:
            return None
        return torch.where(rng.uniform("class_drop") < self.class_drop, self.classes, label)
