"""How the metrics were computed: everything that they depend on besides the images."""

from collections.abc import Mapping
from typing import Any

import torch

from vqlcmd.evaluation.comparison import SEED, Comparison
from vqlcmd.evaluation.extractors import Extractor
from vqlcmd.evaluation.metrics.inception_score import SPLITS
from vqlcmd.precision import FLOAT32
from vqlcmd.torchvision_guard import guard_torchvision


def protocol(
    of: str,
    comparison: Comparison,
    networks: tuple[Extractor, Extractor],
    reference: Mapping[str, Any],
) -> dict[str, Any]:
    """{name: value} for the metrics named `of`; `reference` is the metadata of the reference."""
    guard_torchvision()
    import torch_fidelity

    settings, samples = comparison.settings, comparison.samples
    made = {
        "of": of,
        "batch_size": settings.batch_size,
        "device": torch.device(comparison.device).type,
        "extractor": networks[0].name,
        "generated_images": comparison.generated.count,
        "inception_score_seed": SEED,
        "inception_score_splits": SPLITS,
        "kid": settings.kid.model_dump(),
        "kid_seed": SEED,
        "neighbours": settings.neighbours,
        "precision": settings.precision,
        "precision_extractor": networks[1].name,
        "precision_generated_images": len(comparison.generated.precision_features),
        "precision_real_images": len(comparison.real.precision_features),
        "precision_weights_sha256": networks[1].digest,
        "real_images": comparison.real.count,
        "reference_precision": reference["made_from"]["reference"].get("precision", FLOAT32),
        # Name and digest of the statistics file that is used for the real images, if any.
        "statistics": reference["statistics"],
        "to_uint8": "round((x+1)*127.5)",
        "torch": torch.__version__,
        "torch_fidelity": torch_fidelity.__version__,
        "weights_sha256": networks[0].digest,
    }
    if samples is not None:
        made["nearest_training_images"] = samples.nearest.training_images
        made["nearest_heldout_images"] = len(samples.nearest.heldout)
        made["nearest_quantile"] = settings.nearest.quantile
    if samples is not None and samples.labels is not None:
        counts = samples.labels.bincount()
        made["classes_sampled"] = int((counts > 0).sum())
        made["samples_per_class"] = [int(counts[counts > 0].min()), int(counts.max())]
    return made
