"""What a method is: two verbs, train on tokens and sample tokens, and what there is to know about a trained one."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from vqlcmd.noise import Noise


class Method(nn.Module, ABC):
    """A generative model of N = `tokens` tokens, with `classes` classes (0 for none).

    `weights` maps the name of each loss term that `forward` returns to its weight. Shapes: B images, K codes.
    """

    tokens: int
    classes: int
    weights: dict[str, float]

    @abstractmethod
    def forward(self, tokens_BN: Tensor, label: Tensor | None, noise: Noise, teacher: Any) -> dict[str, Tensor]:
        """Loss terms per image, unweighted: {name: (B,)}. `teacher` is this model's moving average."""

    @abstractmethod
    def sample(self, label: Tensor | None, noise: Noise, *, steps: int, sampler: str, guidance: float) -> Tensor:
        """Tokens (B, N) int64 for classes (B,), one row of `noise` for each image."""

    @abstractmethod
    def network_calls(self, steps: int, guidance: float) -> int:
        """Passes through the network that one image costs."""

    @abstractmethod
    def bound(self, tokens_BN: Tensor, label: Tensor | None, noise: Noise, levels: int) -> Tensor:
        """An upper bound on -log p(x), nats per token: (B,)."""

    @abstractmethod
    def diagnostics(self, tokens_BN: Tensor, label: Tensor | None, noise: Noise) -> dict[str, float]:
        """What to watch during training."""

    @abstractmethod
    def embedding_parameters(self) -> Iterable[nn.Parameter]:
        """What `train.embedding_rate` applies to."""

    @property
    @abstractmethod
    def table(self) -> Tensor:
        """The vectors (K, D) that stand for the codes."""
