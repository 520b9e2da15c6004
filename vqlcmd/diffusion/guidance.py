"""Wrappers around a network's prediction: guidance, temperature, precision, tokens held fixed, and a callback.

Equation 4 of docs/method.md.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from vqlcmd.params import Sampling
from vqlcmd.precision import computing

Predict = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(states (B, N) or (B, N, D), times (B,), classes (B,) or None) -> logits (B, N, K)."""

Watch = Callable[[Tensor, Tensor], None]
"""Called with (states, logits) of one prediction, as in `Predict`. An exception that it raises ends the sampling."""
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Context in which `watch` gets every prediction of this thread's samplers, after guidance. No result changes."""
    before = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(before)


def guided(predict: Predict, weight: float, null: int) -> Predict:
    """log P ~ (1 + w) log P(. | z, c) - w log P(. | z, null): `predict` with guidance of weight w. Equation 4.

    `null` is the null class. w = 0 is the conditional model, at no extra cost. The formula is applied to logits, which
    differ from log-probabilities by a constant per token, and the softmax that follows removes it. Every sampler wraps
    its network in `precise` and then in `guided`, so that `watching` sees all predictions.
    """
    return _watched(_guided(predict, weight, null) if weight else predict)


def precise(predict: Predict, how: Sampling) -> Predict:
    """`predict` with the network's matrix products in `how.precision`; the sampler's own arithmetic stays float32."""

    def predict_precisely(z: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        with computing(how.precision, z.device):
            return predict(z, t, label)

    return predict_precisely


def _watched(predict: Predict) -> Predict:
    watch = _watch.get()
    if watch is None:
        return predict

    def predict_watched(z: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        logits_BNK = predict(z, t, label)
        watch(z, logits_BNK)
        return logits_BNK

    return predict_watched


def _guided(predict: Predict, weight: float, null: int) -> Predict:

    def predict_guided(z: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None, "guidance needs classes"
        both = torch.cat([label, torch.full_like(label, null)])
        conditional, unconditional = predict(torch.cat([z, z]), torch.cat([t, t]), both).chunk(2)
        return (1 + weight) * conditional - weight * unconditional

    return predict_guided


def tempered(predict: Predict, temperature: float) -> Predict:
    """`predict` with P^(1 / T), normalised, of each token: what is probable becomes more so where T is below 1.

    T = 1 changes nothing. Section 5 of docs/method.md.
    """
    if temperature == 1:
        return predict
    return lambda z, t, label: predict(z, t, label) / temperature


def with_known_tokens(predict: Predict, known_BN: Tensor | None) -> Predict:
    """`predict` with P(x_i = k) = 1 for the tokens in `known_BN`, in which -1 marks unknown tokens; None for no change.

    The posterior of a known token is then q(z_s | z_t, x_i), so it follows its own forward process backwards.
    """
    if known_BN is None:
        return predict

    def predict_infilled(z: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        logits_BNK = predict(z, t, label)
        sure_BNK = torch.full_like(logits_BNK, -1e4).scatter_(2, known_BN.clamp_min(0)[..., None], 0.0)
        return torch.where(known_BN[..., None] >= 0, sure_BNK, logits_BNK)

    return predict_infilled
