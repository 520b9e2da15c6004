"""`weights`: which of the weights that training kept the later stages take."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TINY, merge, run_stages, write_params
from tests.factory import params
from vqlcmd.tokens import shards

KEPT: dict[str, Any] = {"train_steps": 30, "train": {"log_every": 15, "snapshots": [2], "ema": [0.5, 0.99]}}


def made_with(folder: Path, weights: str) -> tuple[torch.Tensor, float]:
    """Samples, and the bound in nats per token."""
    write_params(folder, merge(TINY, KEPT | {"weights": weights}))
    run_stages(folder, "sample", "bound", "evaluate", "figures")
    assert shards.read_header(folder / "data/samples")["weights"] == weights
    nats = json.loads((folder / "metrics/bound.json").read_text(encoding="utf-8"))["nats_per_token"]
    return shards.read_split(folder / "data/samples", "samples").tokens, nats


def test_a_snapshot_and_another_average_are_sampled_bounded_and_drawn_like_the_model(copy: Path) -> None:
    write_params(copy, merge(TINY, KEPT))
    run_stages(copy, "train")
    found = {weights: made_with(copy, weights) for weights in ("model", "snapshots/2", "ema-0.99")}
    assert len({nats for _, nats in found.values()}) == 3
    assert found["snapshots/2"][1] > found["model"][1]
    assert not torch.equal(found["snapshots/2"][0], found["model"][0])


@pytest.mark.parametrize("weights", ["snapshots/3", "ema-0.5", "models", "../vqgan"])
def test_weights_that_training_does_not_keep_are_refused(weights: str) -> None:
    with pytest.raises(ValueError, match=f"weights {weights} is not one of model, snapshots/2, ema-0.99"):
        params(train_steps=30, train=KEPT["train"], weights=weights)
