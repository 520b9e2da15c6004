"""Images of every kind become the right pixels, and files that are no images are told by name."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pictures import RECIPE
from vqlcmd.images import loader
from vqlcmd.images.loader import load_all, open_images, stream
from vqlcmd.images.manifest import scan
from vqlcmd.images.sources import ImageSource
from vqlcmd.runtime.errors import DataError


def opened(folder: Path) -> ImageSource:
    return open_images(scan("test", folder), folder.parent)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, of 6 and 5 images of one grey each: 0, 10, 20, ..."""
    for i in range(11):
        path = tmp_path / "pictures" / ("cat" if i < 6 else "dog") / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9 + i, 12), 10 * i).save(path)
    return tmp_path / "pictures"


def break_some(folder: Path) -> None:
    """One truncated, one empty, one text and one flat file: positions 1, 3, 4 and 9."""
    rng = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(rng).save(file, "PNG")
    (folder / "cat/01.png").write_bytes(file.getvalue()[:1500])
    (folder / "cat/03.png").write_bytes(b"")
    (folder / "cat/04.png").write_text("not pixels at all")
    Image.new("RGB", (1, 30)).save(folder / "dog/09.png")


def test_the_digits_are_1797_images_of_ten_classes_over_the_whole_range() -> None:
    digits = open_images(scan("digits", "sklearn-digits"), None)
    batch = load_all(digits, RECIPE)
    assert batch.images.shape == (1797, 3, 8, 8)
    assert (int(batch.images.min()), int(batch.images.max())) == (0, 255)
    assert batch.labels.unique().tolist() == list(range(10))
    assert len(digits) == len({digits.name(i) for i in range(1797)}) == 1797


def test_images_come_in_the_order_of_their_names_with_the_label_of_their_folder(folder: Path) -> None:
    source = opened(folder)
    batches = list(stream(source, RECIPE, batch_size=4, broken={}))
    assert [len(batch.index) for batch in batches] == [4, 4, 3]
    assert torch.cat([batch.images for batch in batches])[:, 0, 0, 0].tolist() == list(range(0, 110, 10))
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0] * 6 + [1] * 5
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(11))
    assert (source.name(0), source.name(10)) == ("cat/00.png", "dog/10.png")


def test_the_order_does_not_depend_on_how_the_system_lists_a_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = opened(folder)
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: str) -> None:
            with scandir(path) as items:
                self.items = sorted(items, key=lambda item: item.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.items

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Backwards)
    source = opened(folder)
    assert [source.name(i) for i in range(11)] == [expected.name(i) for i in range(11)]
    assert source.entries == expected.entries


def test_only_the_asked_for_positions_are_read_and_in_their_order(folder: Path) -> None:
    batches = list(stream(opened(folder), RECIPE, batch_size=2, broken={}, indices=[7, 0, 3]))
    assert [batch.index.tolist() for batch in batches] == [[7, 0], [3]]
    assert [batch.images[:, 0, 0, 0].tolist() for batch in batches] == [[70, 0], [30]]


def test_every_broken_file_is_in_the_one_error_with_its_reason(folder: Path) -> None:
    break_some(folder)
    with pytest.raises(DataError) as error:
        load_all(opened(folder), RECIPE)
    message = str(error.value)
    assert message.startswith("4 of 11 images cannot be read: cat/01.png (image file is truncated")
    assert "cat/03.png (not an image in an accepted format); cat/04.png (not an image in an accepted format)" in message
    assert "dog/09.png (1 x 30 pixels; each side needs 2 or more)" in message
    assert "images.skip_broken: true" in message
    assert "\n" not in message
    assert str(folder) not in message


def test_a_broken_file_shortens_its_own_batch_and_no_other(folder: Path) -> None:
    break_some(folder)
    broken: dict[str, str] = {}
    batches = list(stream(opened(folder), RECIPE, batch_size=2, broken=broken))
    assert [batch.index.tolist() for batch in batches] == [[0], [2], [5], [6, 7], [8], [10]]
    assert [batch.images[:, 0, 0, 0].tolist() for batch in batches] == [[0], [20], [50], [60, 70], [80], [100]]
    assert [batch.labels.tolist() for batch in batches] == [[0], [0], [0], [1, 1], [1], [1]]
    assert sorted(broken) == ["cat/01.png", "cat/03.png", "cat/04.png", "dog/09.png"]
    lonely = list(stream(opened(folder), RECIPE, batch_size=1, broken=broken))
    assert [batch.index.tolist() for batch in lonely] == [[0], [], [2], [], [], [5], [6], [7], [8], [], [10]]
    assert lonely[1].images.shape == (0, *lonely[0].images.shape[1:])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_shares_are_the_same_batches_dealt_out(folder: Path, count: int, workers: int) -> None:
    break_some(folder)
    alone: dict[str, str] = {}
    together: dict[str, str] = {}
    expected = list(stream(opened(folder), RECIPE, batch_size=3, broken=alone))
    for r in range(count):
        dealt = stream(opened(folder), RECIPE, batch_size=3, broken=together, share=(r, count), workers=workers)
        for batch, wanted in zip(dealt, expected[r::count], strict=True):
            assert all(torch.equal(field, wanted_field) for field, wanted_field in zip(batch, wanted, strict=True))
    assert sorted(together.items()) == sorted(alone.items())


def test_a_source_of_broken_files_only_is_an_error_though_they_may_be_skipped(tmp_path: Path) -> None:
    for i in range(25):
        (tmp_path / f"{i:02d}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"25 of 25 .* 19\.jpg \([^()]*\); and 5 more; repair") as error:
        load_all(opened(tmp_path), RECIPE, skip_broken=True)
    assert "20.jpg" not in str(error.value)
    assert "skip_broken" not in str(error.value)


def test_batches_are_full_though_they_are_no_multiple_of_what_is_read_at_a_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "CHUNK", 3)
    batches = list(stream(opened(folder), RECIPE, batch_size=4, broken={}))
    assert [batch.index.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]


def test_workers_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_some(folder)
    monkeypatch.setattr(loader, "CHUNK", 2)
    alone: dict[str, str] = {}
    shared: dict[str, str] = {}
    source = opened(folder)
    expected = list(stream(source, RECIPE, batch_size=3, broken=alone))
    actual = list(stream(source, RECIPE, batch_size=3, broken=shared, workers=2))
    assert len(actual) == len(expected) == 4
    for batch, wanted in zip(actual, expected, strict=True):
        for field, wanted_field in zip(batch, wanted, strict=True):
            torch.testing.assert_close(field, wanted_field, rtol=0, atol=0)
    assert list(shared.items()) == list(alone.items())


def test_reading_leaves_the_global_random_state_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    load_all(opened(folder), RECIPE)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_draw_of_a_draw_prefers_nothing() -> None:
    """Two draws by one seed and purpose kept the first image of a limited reference nearly twice as often as others."""
    counts = np.zeros(20)
    trials = 4000
    for seed in range(trials):
        chosen = loader.subsample(20, 10, seed, "reference")
        counts[chosen[loader.subsample(10, 5, seed, "precision")]] += 1
    # A share of 1/4, whose standard error is sqrt(3/16 / trials) = 0.0068.
    assert np.abs(counts / trials - 0.25).max() < 5 * 0.0068


def test_a_limit_draws_a_subset_by_seed(folder: Path) -> None:
    source = opened(folder)
    drawn = [load_all(source, RECIPE, limit=5, seed=seed) for seed in (0, 0, 1)]
    assert [len(batch.index) for batch in drawn] == [5, 5, 5]
    assert drawn[0].index.tolist() == sorted(set(drawn[0].index.tolist()))
    assert drawn[0].index.tolist() == drawn[1].index.tolist() != drawn[2].index.tolist()
    assert drawn[0].images[:, 0, 0, 0].tolist() == [10 * i for i in drawn[0].index.tolist()]
    assert load_all(source, RECIPE, limit=11, seed=1).index.tolist() == list(range(11))


def test_a_missing_root_or_folder_is_told_with_the_variable_to_set(folder: Path) -> None:
    manifest = scan("test", folder)
    for root in (None, folder / "elsewhere"):
        with pytest.raises(DataError, match="set VQLCMD_IMAGES to the folder that holds 'pictures'"):
            open_images(manifest, root)


@pytest.mark.parametrize("counts", [[5, 5, 5], [1, 20, 3], [0, 4], [7]], ids=str)
def test_images_drawn_over_the_classes_show_each_of_them_before_any_comes_again(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = loader.over_classes(labels)
    assert sorted(order.tolist()) == list(range(len(labels)))
    seen = np.zeros(len(counts), dtype=int)
    for label in labels[order]:
        # Whoever comes again has been waited for by all that have images left.
        assert all(seen[label] <= seen[other] or seen[other] == counts[other] for other in range(len(counts)))
        seen[label] += 1
    assert order.tolist() == loader.over_classes(labels).tolist()
    if counts == [7]:
        assert order.tolist() != sorted(order.tolist())
