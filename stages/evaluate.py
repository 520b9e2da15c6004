"""samples, vqgan, reference -> metrics/evaluate.json, metrics/protocol.json: sample quality and how it was measured."""

import sys
from typing import Any

import torch
from torch import Tensor

from vqlcmd import tokenizer as tokenizers
from vqlcmd.evaluation import metrics
from vqlcmd.evaluation.comparison import Comparison, ImageSet, Samples
from vqlcmd.evaluation.extractors import Extractor, extractors
from vqlcmd.evaluation.moments import Moments, Statistics
from vqlcmd.evaluation.nearest import Nearest, nearest_training
from vqlcmd.evaluation.protocol import protocol
from vqlcmd.params import Evaluate, load_params
from vqlcmd.runtime import launcher, paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.files import write_json
from vqlcmd.runtime.progress import Progress
from vqlcmd.runtime.safetensors_file import load_weights, save_weights
from vqlcmd.tokenizer.pixels import to_uint8
from vqlcmd.tokens import shards
from vqlcmd.tokens.header import grid_of


def run() -> None:
    """Decode the samples on the fly and compare their features with those of the real images."""
    settings = load_params().evaluate
    metrics.select(settings.metrics)
    header = shards.read_header(paths.SAMPLES)
    samples = shards.read_split(paths.SAMPLES, "samples")
    reference, about = load_weights(paths.REFERENCE / "features.safetensors", "reference")
    made_from = (
        belongs.tokenizer(paths.VQGAN),
        belongs.tokens(paths.TOKENS, shards.read_header(paths.TOKENS)),
        belongs.samples(paths.SAMPLES, header),
        belongs.reference(paths.REFERENCE, about),
    )
    belongs.check_belong(*made_from)
    networks = extractors(settings, paths.proxy_weights, device(), settings.precision)
    for name, used in zip(("weights_digest", "precision_weights_digest"), networks, strict=True):
        if about.get(name) != used.digest:
            raise DataError(f"{paths.REFERENCE} was made with other weights than those of {used.name}: run `dvc repro`")

    generated = _generated(samples, grid_of(header, paths.SAMPLES), settings, networks, len(reference["real_features"]))
    real, reconstructed = (_known(reference, about, kind) for kind in ("real", "reconstructed"))
    training, heldout = (shards.read_split(paths.TOKENS, name) for name in ("train", "heldout"))
    near = nearest_training(
        generated.precision_features,
        reconstructed.precision_features,
        torch.isin(reference["index"], training.index),
        torch.isin(reference["index"], heldout.index),
        device(),
    )
    labels = samples.labels if header["classes"] else None
    compared = {
        "samples": Comparison(
            generated, real, settings, device(), Samples(samples.tokens, labels, training.tokens, near)
        ),
        "reconstructions": Comparison(reconstructed, real, settings, device()),
    }
    measured = {name: metrics.measure(comparison) for name, comparison in compared.items()}
    _write_pairs(belongs.header_digest(header), samples.tokens, reference, near, settings.nearest.pairs)
    sources = {"samples": header, "reference": about}
    edits = {name: made["resumed_across"] for name, made in sources.items() if "resumed_across" in made}
    write_json(
        paths.METRICS / "protocol.json",
        # A list, since DVC does not look for metrics in lists.
        [
            protocol(name, comparison, networks, about)
            | ({"resumed_across": edits} if edits else {})
            | ({"class_balance": header["class_balance"]} if name == "samples" else {})
            for name, comparison in compared.items()
        ],
    )
    write_json(
        paths.METRICS / "evaluate.json",
        {
            **measured["samples"],
            "reconstruction": measured["reconstructions"],
            "proxy_heldout_accuracy": about["proxy_accuracy"],
            **_no_accuracy(about, settings),
            "generated_images": generated.count,
            "real_images": real.count,
            "steps": header["steps"],
            "nfe": header["nfe"],
            "parameters": header["parameters"],
        },
    )
    belongs.note_origin(paths.ORIGIN / "evaluate.json", {"evaluate": settings.model_dump(mode="json")}, *made_from)
    for note in measured["samples"].get("notes", []):
        print(f"note: {note}", file=sys.stderr)


def _generated(
    samples: shards.Split, grid: tuple[int, int], settings: Evaluate, networks: tuple[Extractor, Extractor], kept: int
) -> ImageSet:
    """Decode all samples and pass them through the networks; features of the first `kept` of them are kept."""
    network, precise = networks
    tokenizer = tokenizers.load(paths.VQGAN, device())
    moments, near, precise_near, logits = Moments(), list[Tensor](), list[Tensor](), list[Tensor]()
    with Progress("evaluate", len(samples)) as progress:
        for tokens in samples.tokens.split(settings.batch_size):
            shown = to_uint8(tokenizer.decode(tokens.long().to(device()), grid, precision=settings.precision))
            layers = network(shown)
            wanted = kept - moments.count
            if wanted > 0:
                near.append(layers.features[:wanted])
                precise_near.append(near[-1] if precise is network else precise(shown[:wanted]).features)
            if layers.logits is not None:
                logits.append(layers.logits)
            moments.add(layers.features)
            progress.update(moments.count, len(tokens))
    scores = torch.cat(logits) if logits else None
    return ImageSet(len(samples), moments.statistics(), torch.cat(near), torch.cat(precise_near), scores)


def _known(reference: dict[str, Tensor], about: dict[str, Any], kind: str) -> ImageSet:
    """The real or the reconstructed images, from the results of the reference stage."""
    statistics, count, precise = None, about["images"][kind], reference[f"{kind}_features"]
    if f"{kind}_mean" in reference:
        statistics = Statistics(reference[f"{kind}_mean"], reference[f"{kind}_covariance"], count or 0)
    features = reference.get(f"{kind}_fid_features", precise)
    return ImageSet(count, statistics, features, precise, reference.get(f"{kind}_logits"))


def _write_pairs(
    samples_digest: str, sample_tokens: Tensor, reference: dict[str, Tensor], near: Nearest, count: int
) -> None:
    """Write the tokens of the samples nearest to a training image, and those of that image, for a figure."""
    chosen = near.closest(count)
    rows = near.row[chosen]
    pairs = {
        "sample_tokens": sample_tokens[chosen].int(),
        "training_tokens": reference["tokens"][rows].int(),
        "distance": near.samples[chosen],
        "sample": chosen,
        "training_index": reference["index"][rows],
    }
    save_weights(paths.PAIRS, "pairs", pairs, {"samples_digest": samples_digest})


def _no_accuracy(about: dict[str, Any], settings: Evaluate) -> dict[str, str]:
    """The reason why the proxy classifier's accuracy is null; {} if it is not."""
    if about["proxy_accuracy"] is not None:
        return {}
    used = "proxy" in (settings.features, settings.precision_features)
    return {"proxy_heldout_accuracy_null": shards.NONE_HELD_OUT if used else "no proxy classifier is used"}


def main() -> int:
    """Run the stage as `python -m stages.evaluate` does; returns the exit code."""
    return launcher.main("evaluate", run, parallel=False)


if __name__ == "__main__":
    sys.exit(main())
