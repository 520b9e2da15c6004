"""tokens, model, samples, pairs -> metrics/reconstructions.png, grid.png, nearest.png, embeddings.png, schedule.png."""

import sys

import torch

from vqlcmd import figures
from vqlcmd import tokenizer as tokenizers
from vqlcmd.methods import load_method
from vqlcmd.runtime import launcher, paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.safetensors_file import load_weights
from vqlcmd.tokenizer.pixels import to_float, to_uint8
from vqlcmd.tokens import shards
from vqlcmd.tokens.header import grid_of

ROWS = 10
"""Rows in the grid of samples."""
BATCH = 16
"""Images that are encoded or decoded at once."""


def run() -> None:
    """Draw figures of what the other stages made; no result depends on them."""
    samples_header = shards.read_header(paths.SAMPLES)
    weights = paths.weights(samples_header.get("weights", "model"))
    method, about = load_method(weights, torch.device("cpu"))
    pairs, pairs_about = load_weights(paths.PAIRS, "pairs")
    tokenizer = tokenizers.load(paths.VQGAN, device())
    made_from = (
        belongs.tokenizer(paths.VQGAN),
        belongs.tokens(paths.TOKENS, shards.read_header(paths.TOKENS)),
        belongs.model(weights, about),
        belongs.samples(paths.SAMPLES, samples_header),
    )
    belongs.check_belong(*made_from, belongs.pairs(paths.PAIRS, pairs_about))

    grid = grid_of(samples_header, paths.SAMPLES)

    def decoded(tokens_BN: torch.Tensor) -> torch.Tensor:
        parts = tokens_BN.long().to(device()).split(BATCH)
        return torch.cat([to_uint8(tokenizer.decode(part, grid)).cpu() for part in parts])

    images, labels = shards.read_previews(paths.TOKENS)
    names = shards.read_header(paths.TOKENS)["classes"]
    tokens_BN = torch.cat([tokenizer.encode(to_float(part.to(device()))) for part in images.split(BATCH)])
    figures.image_grid(
        torch.cat([images, decoded(tokens_BN)]),
        columns=len(images),
        path=paths.METRICS / "reconstructions.png",
        captions=[names[label] for label in labels.tolist()] * 2 if names else None,
    )

    names = samples_header["classes"]
    columns = len(names) if 1 < len(names) <= 20 else 16
    samples = shards.read_split(paths.SAMPLES, "samples")
    figures.image_grid(
        decoded(samples.tokens[: ROWS * columns]),
        columns,
        paths.METRICS / "grid.png",
        captions=[names[label] for label in samples.labels[: ROWS * columns].tolist()] if names else None,
    )

    shown, training = (
        decoded(pairs[side]) if len(pairs["distance"]) else images[:0] for side in ("sample_tokens", "training_tokens")
    )
    figures.nearest_pairs(shown, training, pairs["distance"], paths.METRICS / "nearest.png")

    figures.noise_schedule(method.alpha_bar, about["params"]["method"], paths.METRICS / "schedule.png")
    figures.embeddings(shards.read_codebook(paths.TOKENS), method.table, paths.METRICS / "embeddings.png")
    belongs.note_origin(paths.ORIGIN / "figures.json", {}, *made_from)


def main() -> int:
    """Run the stage as `python -m stages.figures` does; returns the exit code."""
    return launcher.main("figures", run, parallel=False)


if __name__ == "__main__":
    sys.exit(main())
