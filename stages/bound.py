"""model, tokens -> metrics/bound.json: nats per token on held-out images. Section 6 of docs/method.md."""

import sys

import torch

from vqlcmd.costs import memory
from vqlcmd.methods import load_method
from vqlcmd.params import load_params
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import launcher, paths
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.files import write_json
from vqlcmd.runtime.progress import Progress
from vqlcmd.tokens import shards


def run() -> None:
    """Average the bound over held-out images; its standard error counts images and noise levels alike."""
    params = load_params()
    method, about = load_method(paths.MODEL, device())
    split = shards.read_split(paths.TOKENS, "heldout").to(device())
    if len(split) < 2:
        raise ConfigError(f"the bound needs 2 held-out images and has {len(split)}: raise tokenize.holdout")
    memory.require_bound(
        memory.model_costs(about, params.sampling()),
        min(params.bound.batch_size, len(split)),
        device(),
    )
    values = []
    with Progress("bound", len(split)) as progress:
        for rows in torch.arange(len(split), device=device()).split(params.bound.batch_size):
            labels = split.labels[rows] if about["class_names"] else None
            rng = CounterRNG(0, "bound", rows)
            values.append(method.bound(split.tokens[rows].long(), labels, rng, params.bound.levels).double().cpu())
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


def main() -> int:
    """Run the stage as `python -m stages.bound` does; gives the exit code."""
    return launcher.main("bound", run, parallel=False)


if __name__ == "__main__":
    sys.exit(main())
