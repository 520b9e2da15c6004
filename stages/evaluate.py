"""samples, vqgan, reference -> metrics/evaluate.json: FID, Inception Score, precision, recall, and their protocol."""

import sys
from typing import Any

import torch
from torch import Tensor

from vqlcmd.evaluation import metrics
from vqlcmd.evaluation.extractors import extractors
from vqlcmd.evaluation.moments import Moments, Statistics
from vqlcmd.params import load_params
from vqlcmd.runtime import launcher, paths
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.files import sha256, write_json
from vqlcmd.runtime.progress import Progress
from vqlcmd.runtime.safetensors_file import load_weights
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokenizer.pixels import to_uint8
from vqlcmd.tokens import shards


def run() -> None:
    """Decode the samples on the fly and compare their features with those of the real images."""
    params = load_params()
    settings = params.evaluate
    header = shards.read_header(paths.SAMPLES)
    samples = shards.read_split(paths.SAMPLES, "samples")
    if header["vqgan_digest"] != sha256(paths.VQGAN):
        raise DataError(f"{paths.SAMPLES} belongs to another VQGAN than {paths.VQGAN}: run `dvc repro`")
    reference, about = load_weights(paths.REFERENCE / "features.safetensors", "reference")
    network, precise = extractors(settings, paths.proxy_weights, device())
    for name, used in (("weights_digest", network), ("precision_weights_digest", precise)):
        if about.get(name) != used.digest:
            raise DataError(f"{paths.REFERENCE} was made with another {used.name}: run `dvc repro`")
    tokenizer = vqgan.load(paths.VQGAN, device())

    moments, near, logits = Moments(), list[Tensor](), list[Tensor]()
    with Progress("evaluate", len(samples)) as progress:
        for tokens in samples.tokens.split(settings.batch_size):
            shown = to_uint8(tokenizer.decode(tokens.long().to(device())))
            layers = network(shown)
            # Precision and recall look at no more images than there are real ones.
            wanted = len(reference["real_features"]) - moments.count
            if wanted > 0:
                near.append((layers if precise is network else precise(shown[:wanted])).features[:wanted])
            if layers.logits is not None:
                logits.append(layers.logits)
            moments.add(layers.features)
            progress.update(moments.count, len(tokens))

    def compare(found: Statistics | None, features: Tensor, scores: Tensor | None) -> dict[str, Any]:
        precision, recall = metrics.precision_recall(
            features, reference["real_features"], settings.neighbours, device()
        ) or (None, None)
        score = metrics.inception_score(scores) if scores is not None else None
        measured = {
            "fid": metrics.frechet_distance(found, _statistics(reference, "real", about)),
            "is": score[0] if score else None,
            "is_std": score[1] if score else None,
            "precision": precision,
            "recall": recall,
        }
        return metrics.named(measured, settings.features, settings.precision_features)

    scores, features = torch.cat(logits) if logits else None, torch.cat(near)
    measured = compare(moments.statistics(), features, scores)
    if settings.features == "proxy" and header["classes"] and scores is not None:
        measured["class_accuracy_proxy"] = metrics.class_accuracy(scores, samples.labels)
    training = shards.read_split(paths.TOKENS, "train")
    write_json(
        paths.METRICS / "evaluate.json",
        {
            **measured,
            "reconstruction": compare(
                _statistics(reference, "reconstructed", about),
                reference["reconstructed_features"],
                reference.get("reconstructed_logits"),
            ),
            "proxy_heldout_accuracy": about["proxy_accuracy"],
            "repeated_training_tokens": metrics.share_of_repeats(samples.tokens, training.tokens),
            "steps": header["steps"],
            "nfe": header["nfe"],
            "parameters": header["parameters"],
            "protocol": metrics.protocol(
                extractor=network.name,
                weights_digest=network.digest,
                precision_extractor=precise.name,
                precision_weights_digest=precise.digest,
                generated=len(samples),
                real=about["images"]["real"],
                precision_images=(len(features), len(reference["real_features"])),
                statistics=about["statistics"],
                k=settings.neighbours,
                batch_size=settings.batch_size,
                device=device().type,
            ),
        },
    )


def _statistics(reference: dict[str, Tensor], name: str, about: dict[str, Any]) -> Statistics | None:
    if f"{name}_mean" not in reference:
        return None
    return Statistics(reference[f"{name}_mean"], reference[f"{name}_covariance"], about["images"][name] or 0)


def main() -> int:
    """Run the stage as `python -m stages.evaluate` does; gives the exit code."""
    return launcher.main("evaluate", run, parallel=False)


if __name__ == "__main__":
    sys.exit(main())
