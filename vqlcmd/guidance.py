"""Classifier-free guidance as a wrapper around a prediction: equation 4 of docs/method.md."""

from collections.abc import Callable

import torch
from torch import Tensor

Predict = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(vectors (B, N, D), times (B,), classes (B,) or None) -> logits (B, N, K)."""


def guided(predict: Predict, weight: float, null: int) -> Predict:
    """log P ~ (1 + w) log P(. | z, c) - w log P(. | z, null): at w = 0 the conditional model itself, at no extra cost.

    Logits differ from log-probabilities by a constant per token, which the softmax that follows removes.
    """
    if weight == 0:
        return predict

    def predict_guided(z_BND: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None, "guidance needs classes"
        both = torch.cat([label, torch.full_like(label, null)])
        conditional, unconditional = predict(torch.cat([z_BND, z_BND]), torch.cat([t, t]), both).chunk(2)
        return (1 + weight) * conditional - weight * unconditional

    return predict_guided
