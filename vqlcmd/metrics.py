"""Metrics of generated against real images, from their features; torch-fidelity does the arithmetic.

Shapes: n generated images, m real ones, D features, C classes, N tokens of an image. Generated always comes first.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqlcmd.features import guard_torchvision

_SEED = 2020
_ROUNDING = 1e-5
_CHUNK = 2000


def frechet_distance(generated: Tensor, real: Tensor) -> float | None:
    """|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of features (n, D) and (m, D); None below two images.

    Only a value that is negative by rounding becomes 0. It is biased upwards by few images, so it compares sets of
    equal size only; torch-fidelity, `metric_fid`.
    """
    if min(len(generated), len(real)) < 2:
        return None
    guard_torchvision()
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    one, two = fid_features_to_statistics(generated.cpu()), fid_features_to_statistics(real.cpu())
    distance = fid_statistics_to_metric(one, two, verbose=False)[KEY_METRIC_FID]
    spread = float(np.trace(one["sigma"]) + np.trace(two["sigma"]))
    return 0.0 if -_ROUNDING * spread <= distance < 0 else distance


def inception_score(logits: Tensor, splits: int = 10, seed: int = _SEED) -> tuple[float, float] | None:
    """exp E KL(p(y|x) || p(y)) of raw logits (n, C): mean and spread over shuffled splits; None if n < splits."""
    if len(logits) < splits:
        return None
    guard_torchvision()
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    score = isc_features_to_metric(logits.cpu(), splits=splits, shuffle=True, rng_seed=seed)
    return score[KEY_METRIC_ISC_MEAN], score[KEY_METRIC_ISC_STD]


def precision_recall(generated: Tensor, real: Tensor, k: int = 3) -> tuple[float, float] | None:
    """Precision: share of generated images within reach of a real one; recall: the other way round; both in 0..1.

    An image's reach is the distance to its k-th nearest neighbour in its own set. Features (n, D) and (m, D); None
    unless both sets hold more than k images. Both shares change with n and m. Kynkäänniemi et al. 2019, as in
    torch-fidelity, `metric_prc`.
    """
    if min(len(generated), len(real)) <= k:
        return None
    guard_torchvision()
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    # In chunks: all distances at once would take 40 GiB for 50,000 images.
    how = {"prc_neighborhood": k, "prc_batch_size": _CHUNK, "save_cpu_ram": True, "verbose": False}
    score = prc_features_to_metric(generated.cpu(), real.cpu(), **how)
    return score[KEY_METRIC_PRECISION], score[KEY_METRIC_RECALL]


def class_accuracy(logits: Tensor | None, labels: Tensor) -> float | None:
    """Share in 0..1 of generated images that the extractor's logits (n, C) take for the asked class (n,).

    None without logits or without images. It means something only where the extractor's classes are the data's.
    """
    if logits is None or len(logits) == 0:
        return None
    assert labels.shape == logits.shape[:1], (labels.shape, logits.shape)
    return (logits.argmax(dim=1) == labels.to(logits.device)).double().mean().item()


def share_of_repeats(sample_tokens: Tensor | np.ndarray, training_tokens: Tensor | np.ndarray) -> float:
    """Share in 0..1 of samples (n, N) whose tokens are, every one, those of some training image (m, N); exact.

    Only the samples are held as bytes, so the training set may be large (a memory map will do).
    """
    assert len(sample_tokens) > 0
    assert sample_tokens.shape[1:] == training_tokens.shape[1:], (sample_tokens.shape, training_tokens.shape)
    samples = list(_rows(sample_tokens))
    known = set(samples)
    repeated = {row for row in _rows(training_tokens) if row in known}
    return sum(row in repeated for row in samples) / len(samples)


def protocol(
    *,
    extractor: str,
    weights_digest: str,
    generated: int,
    real: int,
    k: int = 3,
    splits: int = 10,
    seed: int = _SEED,
    batch_size: int,
    device: str,
) -> dict[str, Any]:
    """What was measured how: everything that the numbers depend on beside the images. `generated`, `real`: counts."""
    guard_torchvision()
    import torch_fidelity

    return {
        "batch_size": batch_size,
        "device": device,
        "extractor": extractor,
        "generated_images": generated,
        "inception_score_seed": seed,
        "inception_score_splits": splits,
        "neighbours": k,
        "real_images": real,
        "to_uint8": "round((x+1)*127.5)",
        "torch": torch.__version__,
        "torch_fidelity": torch_fidelity.__version__,
        "weights_sha256": weights_digest,
    }


def named(metrics: Mapping[str, Any], extractor: str) -> dict[str, Any]:
    """{"fid": 3.2} and "judge" give {"fid_judge": 3.2}: no number is mistaken for one of another extractor."""
    return {f"{key}_{extractor}": value for key, value in metrics.items()}


def _rows(tokens: Tensor | np.ndarray, chunk: int = 4096) -> Iterable[bytes]:
    for start in range(0, len(tokens), chunk):
        # One type for both sides: equal tokens must be equal bytes.
        yield from (row.tobytes() for row in np.ascontiguousarray(tokens[start : start + chunk], dtype=np.int32))
