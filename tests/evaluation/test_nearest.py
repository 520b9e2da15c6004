"""Memorising shows: samples nearer to training images than held-out images are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import TINY, inside, merge, run_stages, write_params
from vqlcmd import figures
from vqlcmd.evaluation import distances
from vqlcmd.evaluation.distances import nearest
from vqlcmd.evaluation.metrics.nearest_training import nearness
from vqlcmd.evaluation.nearest import nearest_training
from vqlcmd.runtime import paths
from vqlcmd.runtime.safetensors_file import load_weights
from vqlcmd.tokens import shards


def normal(n: int, size: int, seed: int) -> Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [3, 1500])
def test_the_nearest_is_the_nearest_whatever_the_pieces(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "CHUNK", chunk)
    rows, others = normal(20, 7, 0), normal(50, 7, 1)
    distance, index = nearest(rows, others, "cpu")
    every = np.linalg.norm(rows.numpy()[:, None] - others.numpy()[None], axis=2)
    np.testing.assert_array_equal(index.numpy(), every.argmin(axis=1))
    np.testing.assert_allclose(distance.numpy(), every.min(axis=1), rtol=1e-5)


def test_a_copy_is_at_distance_zero_however_large_its_features() -> None:
    """By matrix products it would be at the root of the rounding, 0.1 here."""
    others = 1000 + normal(200, 64, 0)
    distance, index = nearest(others[[3, 7]], others, "cpu")
    assert distance.tolist() == [0, 0]
    assert index.tolist() == [3, 7]


def test_fresh_draws_come_as_near_as_held_out_images_and_copies_do_not() -> None:
    """A ratio of 1 and the quantile itself; half copies: the median falls, and the share is half and more."""
    images = normal(1500, 8, 0)
    training = torch.zeros(1500, dtype=torch.bool)
    training[:1000] = True
    fresh, copies = normal(1000, 8, 1), images[:500] + 1e-3 * normal(500, 8, 2)
    found = nearest_training(fresh, images, training, ~training, "cpu")
    ratio, share = nearness(found.samples, found.heldout, 0.05)
    assert ratio == pytest.approx(1, abs=0.05)
    assert share == pytest.approx(0.05, abs=0.03)
    found = nearest_training(torch.cat([copies, fresh[:499]]), images, training, ~training, "cpu")
    ratio, share = nearness(found.samples, found.heldout, 0.05)
    assert ratio is not None
    assert share is not None
    assert ratio < 0.1
    assert share > 0.5
    assert set(found.closest(500).tolist()) == set(range(500))
    assert found.row[:500].tolist() == list(range(500))


def test_copies_among_the_held_out_images_leave_neither_ratio_nor_share() -> None:
    """Nothing is nearer than 0: samples that are copies themselves made a share of 0, as if nothing were memorised."""
    assert nearness(torch.zeros(4), torch.zeros(30), 0.05) == (None, None)
    few = torch.cat([torch.zeros(3), torch.ones(27)])
    assert nearness(torch.zeros(4), few, 0.05) == (0.0, None)
    assert nearness(torch.zeros(4), few, 0.2) == (0.0, 1.0)


def test_rows_are_those_of_the_reference_though_only_some_are_training_images() -> None:
    images = normal(40, 5, 0)
    training = torch.arange(40) % 3 == 1
    found = nearest_training(images[[4, 22]], images, training, ~training, "cpu")
    assert found.row.tolist() == [4, 22]
    assert (found.training_images, len(found.heldout)) == (13, 27)


def test_samples_that_repeat_training_tokens_are_the_pairs_at_distance_zero(copy: Path) -> None:
    """Through the stages: features of a sample are those of the training image's reconstruction."""
    write_params(copy, merge(TINY, {"evaluate": {"nearest": {"pairs": 5}}}))
    with inside(copy):
        header = shards.read_header(paths.SAMPLES)
        samples = shards.read_split(paths.SAMPLES, "samples")
        training = shards.read_split(paths.TOKENS, "train")
        samples.tokens[[2, 30, 41]] = training.tokens[[100, 7, 900]]
        about = {key: value for key, value in header.items() if key not in ("splits", "format")}
        shards.write_shards(paths.SAMPLES, {"samples": samples}, about, 50)
        run_stages(copy, "evaluate", "figures")
        pairs, _ = load_weights(paths.PAIRS, "pairs")
        found = json.loads((paths.METRICS / "evaluate.json").read_text(encoding="utf-8"))
    assert found["repeated_training_tokens"] == pytest.approx(3 / 50)
    assert len(pairs["sample"]) == 5
    assert set(pairs["sample"][:3].tolist()) == {2, 30, 41}
    assert pairs["distance"][:3].max().item() < 1e-3
    assert torch.equal(pairs["sample_tokens"][:3], pairs["training_tokens"][:3])
    order = pairs["sample"][:3].argsort()
    assert pairs["training_index"][:3][order].tolist() == training.index[[100, 7, 900]].tolist()


def test_pairs_are_drawn_with_the_same_bytes_and_none_is_fine(tmp_path: Path) -> None:
    images = torch.arange(7 * 3 * 16 * 16).view(7, 3, 16, 16).to(torch.uint8)
    for name in ("one.png", "two.png"):
        figures.nearest_pairs(images, images.flip(0), torch.linspace(0, 1, 7), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    figures.nearest_pairs(images[:0], images[:0], torch.empty(0), tmp_path / "none.png")
    assert (tmp_path / "none.png").is_file()
