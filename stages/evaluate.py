"""samples, vqgan, reference -> metrics/evaluate.json: FID, Inception Score, precision, recall, and their protocol."""

import sys
from typing import Any

import torch
from torch import Tensor

from stages import paths, runner
from vqlcmd import metrics, shards, vqgan
from vqlcmd.config import load_params
from vqlcmd.distributed import device
from vqlcmd.errors import DataError
from vqlcmd.features import extractor
from vqlcmd.files import sha256, write_json
from vqlcmd.progress import Progress
from vqlcmd.weights import load_weights


def run() -> None:
    """Decode the samples on the fly and compare their features with those of the real images."""
    params = load_params()
    header = shards.read_header(paths.SAMPLES)
    samples = shards.read_split(paths.SAMPLES, "samples")
    if header["vqgan_digest"] != sha256(paths.VQGAN):
        raise DataError(f"{paths.SAMPLES} belongs to another VQGAN than {paths.VQGAN}: run `dvc repro`")
    reference, about = load_weights(paths.REFERENCE / "features.safetensors", "reference")
    network = extractor(params.evaluate.features, paths.judge_weights(params.evaluate.features), device())
    if about["weights_digest"] != network.digest:
        raise DataError(f"{paths.REFERENCE} was made with another {params.evaluate.features}: run `dvc repro`")
    tokenizer = vqgan.load(paths.VQGAN, device())

    found: dict[str, list[Tensor]] = {"features": [], "logits": []}
    with Progress("evaluate", len(samples)) as progress:
        for tokens in samples.tokens.split(params.evaluate.batch_size):
            shown = vqgan.to_uint8(tokenizer.decode(tokens.long().to(device())))
            for layer, values in network(shown).items():
                found[layer] += [] if values is None else [values]
            progress.update(sum(map(len, found["features"])), len(tokens))
    generated = {f"generated_{layer}": torch.cat(parts) for layer, parts in found.items() if parts}

    measured = _compare(generated, reference, "generated", params.evaluate.neighbours)
    if params.evaluate.features == "judge" and header["classes"] and "generated_logits" in generated:
        measured["class_accuracy"] = metrics.class_accuracy(generated["generated_logits"], samples.labels)
    training = shards.read_split(paths.TOKENS, "train")
    write_json(
        paths.METRICS / "evaluate.json",
        {
            **metrics.named(measured, params.evaluate.features),
            "reconstruction": metrics.named(
                _compare(reference, reference, "reconstructed", params.evaluate.neighbours), params.evaluate.features
            ),
            "judge_heldout_accuracy": about["judge_accuracy"],
            "repeated_training_tokens": metrics.share_of_repeats(samples.tokens, training.tokens),
            "steps": header["steps"],
            "network_calls": header["network_calls"],
            "parameters": header["parameters"],
            "protocol": metrics.protocol(
                extractor=params.evaluate.features,
                weights_digest=about["weights_digest"],
                generated=len(samples),
                real=len(reference["real_features"]),
                k=params.evaluate.neighbours,
                batch_size=params.evaluate.batch_size,
                device=device().type,
            ),
        },
    )


def _compare(found: dict[str, Tensor], reference: dict[str, Tensor], name: str, neighbours: int) -> dict[str, Any]:
    features, real = found[f"{name}_features"], reference["real_features"]
    precision, recall = metrics.precision_recall(features, real, neighbours) or (None, None)
    score = metrics.inception_score(found[f"{name}_logits"]) if f"{name}_logits" in found else None
    return {
        "fid": metrics.frechet_distance(features, real),
        "is": score[0] if score else None,
        "is_std": score[1] if score else None,
        "precision": precision,
        "recall": recall,
    }


if __name__ == "__main__":
    sys.exit(runner.main("evaluate"))
