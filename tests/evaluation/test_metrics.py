"""Distances and shares whose right values are known, and agreement with torch-fidelity from images to numbers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.peers.metrics import streamed
from vqlcmd.evaluation.extractors import extractor
from vqlcmd.evaluation.fidelity import register_proxy
from vqlcmd.evaluation.frechet import frechet_distance
from vqlcmd.evaluation.metrics.class_accuracy import class_accuracy
from vqlcmd.evaluation.metrics.inception_score import inception_score
from vqlcmd.evaluation.metrics.kid import kernel_distance
from vqlcmd.evaluation.metrics.precision_recall import precision_recall
from vqlcmd.evaluation.metrics.repeats import share_of_repeats
from vqlcmd.evaluation.proxy_classifier import fit_proxy, save_proxy
from vqlcmd.runtime.files import write_json


def normal(n: int, size: int, seed: int) -> Tensor:
    return torch.randn(n, size, generator=torch.Generator().manual_seed(seed))


def distance(generated: Tensor, real: Tensor) -> float:
    return frechet_distance(*(streamed(features, 1000) for features in (generated, real)))


def test_the_frechet_distance_of_two_gaussians_is_the_closed_form() -> None:
    """|mu|^2 + tr(1 + S - 2 S^(1/2)) between N(0, 1) and N(mu, S); its error falls as one over the root of n."""
    size, n = 6, 40_000
    mean = torch.linspace(-1, 1, size)
    turn = torch.linalg.qr(normal(size, size, 0).double()).Q.float()
    scale = torch.linspace(0.5, 2, size)
    other = normal(n, size, 1) * scale @ turn.T + mean
    exact = (mean.square().sum() + (1 - scale).square().sum()).item()
    found = distance(normal(n, size, 2), other)
    assert found == pytest.approx(exact, abs=0.1)
    assert distance(other, normal(n, size, 2)) == pytest.approx(found)


@pytest.mark.parametrize("n", [40, 500])
def test_a_set_is_at_distance_zero_from_itself_and_never_below(n: int) -> None:
    features = normal(n, 64, 0)
    assert 0 <= distance(features, features.clone()) < 1e-5


def test_few_images_of_one_distribution_are_further_apart_than_many() -> None:
    """Why only sets of equal size are compared."""
    few = distance(normal(100, 32, 0), normal(100, 32, 1))
    many = distance(normal(2000, 32, 0), normal(2000, 32, 1))
    assert few > 5 * many


def test_the_kernel_distance_of_one_distribution_is_zero_from_few_images_too() -> None:
    """Unbiased, unlike the Fréchet distance; a shift by half a deviation is seen at once."""
    mean, spread = kernel_distance(normal(400, 32, 0), normal(400, 32, 1), subsets=30, subset_size=100)
    shifted, _ = kernel_distance(normal(400, 32, 0), normal(400, 32, 1) + 0.5, subsets=30, subset_size=100)
    assert abs(mean) < spread
    assert shifted > 5 * spread


def test_the_kernel_distance_is_the_unbiased_estimate_with_a_cubic_kernel() -> None:
    """With all images in each subset nothing is drawn: sums over pairs, those of an image with itself left out."""
    one, two = normal(40, 8, 0).double(), normal(40, 8, 1).double() * 1.5

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / 8 + 1) ** 3

    within = [(kernel(x, x).sum() - kernel(x, x).trace()) / (40 * 39) for x in (one, two)]
    expected = (within[0] + within[1] - 2 * kernel(one, two).mean()).item()
    assert kernel_distance(one, two, subsets=2, subset_size=40) == (pytest.approx(expected), pytest.approx(0))


def test_a_collapsed_set_is_precise_and_recalls_nothing() -> None:
    """The first argument is the generated set; swapped, the two numbers change places."""
    real = normal(400, 8, 0)
    collapsed = real[:1] + 1e-3 * normal(400, 8, 1)
    assert precision_recall(collapsed, real) == (1.0, pytest.approx(0, abs=0.01))
    assert precision_recall(real, collapsed) == (pytest.approx(0, abs=0.01), 1.0)


def test_precision_and_recall_see_the_missing_half_of_two_clusters() -> None:
    far = torch.tensor([100.0, 0, 0])
    real = torch.cat([normal(200, 3, 0), normal(200, 3, 1) + far])
    precision, recall = precision_recall(normal(200, 3, 2), real)
    assert precision > 0.8
    assert 0.4 < recall <= 0.5


def test_a_wider_neighbourhood_covers_more() -> None:
    one, two = normal(200, 8, 0), normal(200, 8, 1)
    narrow, wide = precision_recall(one, two, k=1), precision_recall(one, two, k=10)
    assert wide[0] > narrow[0]
    assert wide[1] > narrow[1]


def test_sure_and_even_answers_score_the_number_of_classes_and_unsure_ones_score_one() -> None:
    sure = 100.0 * torch.eye(5).repeat(400, 1)
    score, spread = inception_score(sure)
    assert score == pytest.approx(5, rel=0.02)
    assert 0 < spread < 0.1
    assert inception_score(torch.zeros(50, 5)) == (pytest.approx(1), pytest.approx(0))
    assert inception_score(sure, seed=1) != (score, spread)


def test_class_accuracy_is_the_share_of_largest_logits_at_the_label() -> None:
    assert class_accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0])) == 0.75


def test_the_share_of_repeats_counts_samples_equal_to_a_training_image_in_every_token() -> None:
    training = np.random.default_rng(0).integers(0, 512, (5000, 16), dtype=np.uint16)
    samples = torch.from_numpy(training[[0, 0, 4999, 7]].astype(np.int64))
    samples[3, 15] += 1
    assert share_of_repeats(samples, training) == 0.75
    assert share_of_repeats(samples, torch.from_numpy(training.astype(np.int64))[8:4000]) == 0.0


def test_numbers_from_features_equal_torch_fidelity_run_on_the_images(tmp_path: Path) -> None:
    draws = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (80, 3, 16, 16), generator=draws, dtype=torch.uint8)
    generated = real[:60].flip(2) // 2
    labels = torch.arange(80) % 4
    path = tmp_path / "proxy.safetensors"
    save_proxy(fit_proxy(real, labels, 4, steps=5, batch_size=16, learning_rate=1e-3, seed=0), path)
    extract = extractor("proxy", path)
    ours, theirs = extract.collect(generated.split(32)), extract.collect(real.split(32))
    assert ours.logits is not None

    name = register_proxy()
    import torch_fidelity

    expected = torch_fidelity.calculate_metrics(
        input1=Images(generated),
        input2=Images(real),
        feature_extractor=name,
        feature_extractor_weights_path=str(path),
        isc=True,
        fid=True,
        prc=True,
        cuda=False,
        batch_size=32,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )
    assert distance(ours.features, theirs.features) == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)
    assert precision_recall(ours.features, theirs.features) == pytest.approx(
        (expected["precision"], expected["recall"]), abs=1e-6
    )
    assert inception_score(ours.logits) == pytest.approx(
        (expected["inception_score_mean"], expected["inception_score_std"]), rel=1e-6
    )


class Images(torch.utils.data.Dataset[Tensor]):
    """torch-fidelity takes neither tensors nor arrays."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_json_holds_no_nan_six_digits_and_sorted_keys(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "metrics.json"
    values = {"z": math.nan, "a": 1 / 3, "none": None, "list": [math.inf, -math.inf, 2.5], "in": {"n": 50_000}}
    write_json(path, values)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    read = json.loads(path.read_text(), parse_constant=refuse)
    assert read == {"z": None, "a": 0.333333, "none": None, "list": [None, None, 2.5], "in": {"n": 50_000}}
    assert list(read) == sorted(read)
    first = path.read_bytes()
    write_json(path, {**values, "a": 1 / 3 + 1e-12})
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["metrics.json"]
