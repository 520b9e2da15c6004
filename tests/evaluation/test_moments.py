"""Statistics in one pass, whatever the batches, and those that others publish."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.peers.metrics import streamed
from vqlcmd.evaluation.frechet import frechet_distance, reconstruction_distance
from vqlcmd.evaluation.moments import Moments, read_statistics
from vqlcmd.runtime.errors import DataError


def features(n: int = 300, size: int = 12) -> Tensor:
    """Far from the origin, where E[x^2] - E[x]^2 loses all digits in float32."""
    drawn = torch.randn(n, size, generator=torch.Generator().manual_seed(0))
    return 1000 + drawn @ torch.randn(size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [1, 7, 299, 300])
def test_mean_and_covariance_are_numpys_whatever_the_batches(size: int) -> None:
    values = features()
    found = streamed(values, size)
    exact = values.double().numpy()
    np.testing.assert_allclose(found.mean.numpy(), exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance.numpy(), np.cov(exact, rowvar=False), rtol=1e-9, atol=1e-9)
    assert found.count == 300


@pytest.mark.parametrize("cuts", [[300], [0, 300], [1, 2, 299], [100, 200], [300, 300]])
def test_moments_of_parts_merge_into_those_of_the_whole(cuts: list[int]) -> None:
    """Parts of one image, and of none, too."""
    values, moments = features(), Moments()
    for part in torch.tensor_split(values, cuts):
        own = Moments()
        own.add(part)
        moments.merge(own)
        own.add(features(5) + 3)
    found, whole = moments.statistics(), streamed(values, 300)
    assert found is not None
    assert found.count == 300
    torch.testing.assert_close(found.mean, whole.mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(found.covariance, whole.covariance, rtol=1e-10, atol=1e-10)


def test_a_run_that_goes_on_ends_bit_for_bit_as_one_that_was_not_interrupted() -> None:
    values = features()
    first = Moments()
    first.add(values[:80])
    second = Moments()
    second.load_state_dict(first.state_dict())
    second.add(values[80:160])
    whole = streamed(values[:160], 80)
    found = second.statistics()
    assert found is not None
    assert torch.equal(found.mean, whole.mean)
    assert torch.equal(found.covariance, whole.covariance)


def test_nothing_adds_nothing_and_one_image_has_no_covariance() -> None:
    moments = Moments()
    moments.add(torch.empty(0, 5))
    moments.add(features(1))
    moments.add(torch.empty(0, 5))
    assert moments.count == 1
    assert moments.statistics() is None


def test_published_statistics_give_the_distance_that_the_images_give(tmp_path: Path) -> None:
    """Files of ADM hold more arrays beside these, and float32 in some."""
    one, two = streamed(features(), 100), streamed(features() * 1.1, 100)
    path = tmp_path / "VIRTUAL_set.npz"
    np.savez(path, arr_0=np.zeros(3), mu=two.mean.numpy().astype(np.float32), sigma=two.covariance.numpy())
    assert frechet_distance(one, read_statistics(path)) == pytest.approx(frechet_distance(one, two), rel=1e-3)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"mu": np.zeros(3)}, "sigma is not a file"),
        ({"mu": np.zeros(3), "sigma": np.eye(4)}, r"mu \(3,\), sigma \(4, 4\)"),
        ({"mu": np.zeros(()), "sigma": np.eye(4)}, r"mu \(\), sigma \(4, 4\)"),
        ({"mu": np.zeros(2), "sigma": np.array([[1, np.nan], [0, 1]])}, "finite"),
        ({"mu": np.zeros(2), "sigma": np.array([[1, 0.5], [0, 1]])}, "symmetric"),
        ({"mu": np.array([object()]), "sigma": np.eye(1)}, r"no \.npz file with mu and sigma"),
    ],
)
def test_a_file_without_usable_statistics_is_refused_in_one_line(
    tmp_path: Path, arrays: dict[str, np.ndarray], reason: str
) -> None:
    path = tmp_path / "statistics.npz"
    np.savez(path, allow_pickle=True, **arrays)
    with pytest.raises(DataError, match=reason) as failure:
        read_statistics(path)
    assert "\n" not in str(failure.value)


def test_files_that_are_missing_or_something_else_are_named(tmp_path: Path) -> None:
    path = tmp_path / "statistics.npz"
    with pytest.raises(DataError, match="is missing"):
        read_statistics(path)
    np.save(tmp_path / "array.npy", np.eye(3))
    for content in (b"", b"PK\x03\x04 cut off", b"text", (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"no \.npz file"):
            read_statistics(path)


def test_equal_reconstructions_are_at_distance_0_and_shifted_ones_at_the_square_of_the_shift() -> None:
    images = torch.randint(0, 200, (6, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def distance(moved: int, size: int) -> float | None:
        return reconstruction_distance(
            ((part, part + moved) for part in images.split(size)), lambda part: part.flatten(1).double()[:, :2]
        )

    assert distance(0, 6) == pytest.approx(0, abs=1e-6)
    assert distance(3, 6) == pytest.approx(2 * 3**2, rel=1e-6)
    assert distance(3, 2) == pytest.approx(2 * 3**2, rel=1e-6)
    assert reconstruction_distance([(images[:1], images[:1])], lambda part: part.flatten(1)) is None
