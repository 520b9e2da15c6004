"""Exact repeats: samples that have the same tokens as a training image."""

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from vqlcmd.evaluation.comparison import Comparison, Measure

FEATURES = None


def measure(comparison: Comparison) -> dict[str, Measure]:
    """`repeated_training_tokens` of samples."""
    if comparison.samples is None:
        return {}
    return {
        "repeated_training_tokens": Measure(
            share_of_repeats(comparison.samples.tokens, comparison.samples.training_tokens)
        )
    }


def share_of_repeats(sample_tokens: Tensor | np.ndarray, training_tokens: Tensor | np.ndarray) -> float:
    """Fraction in 0..1 of samples (n, N) whose tokens all equal those of some training image (m, N); exact.

    Only the samples are held in memory as bytes, so the training set may be large (a memory map, for example).
    """
    assert len(sample_tokens) > 0
    assert sample_tokens.shape[1:] == training_tokens.shape[1:], (sample_tokens.shape, training_tokens.shape)
    samples = list(_rows(sample_tokens))
    known = set(samples)
    repeated = {row for row in _rows(training_tokens) if row in known}
    return sum(row in repeated for row in samples) / len(samples)


def _rows(tokens: Tensor | np.ndarray, chunk: int = 4096) -> Iterable[bytes]:
    for start in range(0, len(tokens), chunk):
        # One type for both sides: equal tokens must be equal bytes.
        yield from (row.tobytes() for row in np.ascontiguousarray(tokens[start : start + chunk], dtype=np.int32))
