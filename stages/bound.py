"""model, tokens -> metrics/bound.json: nats per token on held-out images. Section 6 of docs/method.md."""

import sys

import torch

from stages import paths, runner
from vqlcmd import shards
from vqlcmd.config import load_params
from vqlcmd.distributed import device
from vqlcmd.errors import ConfigError
from vqlcmd.files import write_json
from vqlcmd.models import load_method
from vqlcmd.noise import Noise
from vqlcmd.progress import Progress


def run() -> None:
    """Average the bound over held-out images; its standard error counts images and noise levels alike."""
    params = load_params()
    method, about = load_method(paths.MODEL, device())
    split = shards.read_split(paths.TOKENS, "heldout").to(device())
    if len(split) < 2:
        raise ConfigError(f"the bound needs 2 held-out images and has {len(split)}: raise tokenize.holdout")
    values = []
    with Progress("bound", len(split)) as progress:
        for rows in torch.arange(len(split), device=device()).split(params.bound.batch_size):
            labels = split.labels[rows] if about["class_names"] else None
            noise = Noise(0, "bound", rows)
            values.append(method.bound(split.tokens[rows].long(), labels, noise, params.bound.levels).double().cpu())
            progress.update(int(rows[-1]) + 1, len(rows))
    nats = torch.cat(values)
    write_json(
        paths.METRICS / "bound.json",
        {
            "nats_per_token": float(nats.mean()),
            "standard_error": float(nats.std() / len(nats) ** 0.5),
            "images": len(nats),
            "levels": params.bound.levels,
        },
    )


if __name__ == "__main__":
    sys.exit(runner.main("bound"))
