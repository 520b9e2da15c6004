"""Metrics of generated against real images, from their features; torch-fidelity does the arithmetic.

Shapes: n generated images, m real ones, D features, C classes, N tokens of an image. Generated always comes first.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqlcmd.evaluation.moments import Statistics
from vqlcmd.runtime.torchvision_guard import guard_torchvision
from vqlcmd.tokenizer.pixels import full_precision

_SEED = 2020
_ROUNDING = 1e-5
CHUNK = 1500
"""Rows of distances at a time."""
_COLUMNS = 10_000


def frechet_distance(generated: Statistics | None, real: Statistics | None) -> float | None:
    """|mu_1 - mu_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of two sets' statistics; None where one is missing.

    Only a value that is negative by rounding becomes 0. It is biased upwards by few images, so it compares sets of
    equal size only; torch-fidelity, `metric_fid`.
    """
    if generated is None or real is None:
        return None
    guard_torchvision()
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    one, two = ({"mu": each.mean.numpy(), "sigma": each.covariance.numpy()} for each in (generated, real))
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


@full_precision()
def precision_recall(
    generated: Tensor, real: Tensor, k: int = 3, device: torch.device | str = "cpu"
) -> tuple[float, float] | None:
    """Precision: share of generated images within reach of a real one; recall: the other way round; both in 0..1.

    An image's reach is the distance to its k-th nearest neighbour in its own set. Features (n, D) and (m, D); None
    unless both sets hold more than k images. Both shares change with n and m. Kynkäänniemi et al. 2019; the numbers
    of torch-fidelity's `metric_prc`, which computes on the CPU alone and the distances between the sets twice.
    """
    if min(len(generated), len(real)) <= k:
        return None
    generated, real = generated.to(device), real.to(device)
    # In chunks: all distances at once would take 10 GiB for 50,000 images. The nearest of its own set is itself.
    generated_reach, real_reach = (
        torch.cat([_distances(rows, each).topk(k + 1, largest=False).values[:, k] for rows in each.split(CHUNK)])
        for each in (generated, real)
    )
    precise = torch.zeros(len(generated), dtype=torch.bool, device=device)
    recalled = []
    for rows, reach in zip(real.split(CHUNK), real_reach.split(CHUNK), strict=True):
        distances = _distances(rows, generated)
        precise |= (distances <= reach[:, None]).any(dim=0)
        recalled.append((distances <= generated_reach).any(dim=1))
    return precise.double().mean().item(), torch.cat(recalled).double().mean().item()


def _distances(rows: Tensor, features: Tensor) -> Tensor:
    """Euclidean, (rows, n). PyTorch copies what it takes the distance to, so not all of it at once."""
    return torch.cat([torch.cdist(rows, part) for part in features.split(_COLUMNS)], dim=1)


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
    precision_extractor: str,
    precision_weights_digest: str,
    generated: int,
    real: int | None,
    precision_images: tuple[int, int],
    statistics: dict[str, str] | None,
    k: int = 3,
    splits: int = 10,
    seed: int = _SEED,
    batch_size: int,
    device: str,
) -> dict[str, Any]:
    """What was measured how: everything that the numbers depend on beside the images.

    `generated`, `real`: images behind the Fréchet distance, None where a file of statistics does not say;
    `precision_images`: generated and real ones behind precision and recall; `statistics`: that file's name and digest.
    """
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
        "precision_extractor": precision_extractor,
        "precision_generated_images": precision_images[0],
        "precision_real_images": precision_images[1],
        "precision_weights_sha256": precision_weights_digest,
        "real_images": real,
        "statistics": statistics,
        "to_uint8": "round((x+1)*127.5)",
        "torch": torch.__version__,
        "torch_fidelity": torch_fidelity.__version__,
        "weights_sha256": weights_digest,
    }


def named(metrics: Mapping[str, Any], extractor: str, precision_extractor: str | None = None) -> dict[str, Any]:
    """{"fid": 3.2} and "proxy" give {"fid_proxy": 3.2}: no number is mistaken for one of another extractor.

    Precision and recall are named after their own, where they have one.
    """
    own = {"precision": precision_extractor, "recall": precision_extractor}
    return {f"{key}_{own.get(key) or extractor}": value for key, value in metrics.items()}


def _rows(tokens: Tensor | np.ndarray, chunk: int = 4096) -> Iterable[bytes]:
    for start in range(0, len(tokens), chunk):
        # One type for both sides: equal tokens must be equal bytes.
        yield from (row.tobytes() for row in np.ascontiguousarray(tokens[start : start + chunk], dtype=np.int32))
