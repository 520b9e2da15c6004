"""model, tokens -> metrics/bound.json: nats per token on held-out tokens. Section 6 of docs/method.md."""

import sys

import torch

from vqlcmd.costs import memory
from vqlcmd.methods import load_method
from vqlcmd.params import load_run
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import launcher, paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.files import write_json
from vqlcmd.runtime.progress import Progress
from vqlcmd.tokens import shards


def run() -> None:
    """Average the bound over held-out tokens; its standard error includes the variation over images and noise levels.

    Null, with the reason, where nothing is held out.
    """
    params = load_run()
    weights = paths.weights(params.weights)
    method, about = load_method(weights, device())
    tokens = belongs.tokens(paths.TOKENS, shards.read_header(paths.TOKENS))
    made_from = (belongs.model(weights, about), tokens)
    belongs.check_belong(*made_from)
    split = shards.read_split(paths.TOKENS, "heldout").to(device())
    memory.require_bound(memory.model_costs(about), min(params.bound.batch_size, len(split)), device())
    values = [torch.empty(0, dtype=torch.float64)]
    with Progress("bound", len(split), unit=params.unit) as progress:
        for first in range(0, len(split), params.bound.batch_size):
            rows = torch.arange(first, min(first + params.bound.batch_size, len(split)), device=device())
            labels = split.labels[rows] if about["class_names"] else None
            rng = CounterRNG(0, "bound", rows)
            values.append(method.bound(split.tokens[rows].long(), labels, rng, params.bound.levels).double().cpu())
            progress.update(int(rows[-1]) + 1, len(rows))
    nats = torch.cat(values)
    write_json(
        paths.METRICS / "bound.json",
        {
            "nats_per_token": float(nats.mean()) if len(nats) else None,
            "standard_error": float(nats.std() / len(nats) ** 0.5) if len(nats) > 1 else None,
            **_reasons(len(nats)),
            "images": len(nats),
            "levels": params.bound.levels,
        },
    )
    belongs.note_origin(paths.ORIGIN / "bound.json", {"bound": params.bound.model_dump(mode="json")}, *made_from)


def _reasons(images: int) -> dict[str, str]:
    """{key: reason} for each number that is null because of the number of images."""
    if not images:
        return dict.fromkeys(("nats_per_token_null", "standard_error_null"), shards.NONE_HELD_OUT)
    return {"standard_error_null": "one number has no spread: raise tokenize.holdout"} if images == 1 else {}


def main() -> int:
    """Run the stage as `python -m stages.bound` does; returns the exit code."""
    return launcher.main("bound", run, parallel=False)


if __name__ == "__main__":
    sys.exit(main())
