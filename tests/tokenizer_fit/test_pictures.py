"""Pictures in memory and on disk come in the same order, and views are a function of place and step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vqlcmd.images import loader, manifest
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import DataError
from vqlcmd.tokenizer_fit.pictures import InMemory, OnDisk, Order, middle_views, open_pictures, random_views

RECIPE = loader.Recipe(8, "bilinear")
COUNT = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten flat pictures, number k of the grey level 10 k."""
    root = tmp_path_factory.mktemp("flat")
    for number in range(COUNT):
        Image.fromarray(np.full((9, 9, 3), 10 * number, dtype=np.uint8)).save(root / f"{number}.png")
    return root


def opened(folder: Path, limit: int, workers: int = 0, skip_broken: bool = False):
    source = loader.open_images(manifest.scan("flat", folder), folder.parent)
    positions = torch.arange(len(source))
    return open_pictures(source, RECIPE, positions, limit=limit, workers=workers, skip_broken=skip_broken)


def numbers(images: Tensor) -> list[int]:
    return (images[:, 0, 0, 0] // 10).tolist()


def batches(pictures, count: int, part: slice = slice(None), size: int = 4) -> list[list[int]]:
    order = Order(pictures, size, part, torch.Generator().manual_seed(0))
    return [numbers(order.batch()) for _ in range(count)]


def test_what_exceeds_the_limit_is_read_from_disk_in_the_order_of_memory(folder: Path):
    held, read = opened(folder, COUNT), opened(folder, COUNT - 1)
    assert isinstance(held, InMemory)
    assert isinstance(read, OnDisk)
    assert batches(held, 9) == batches(read, 9)
    assert numbers(read.read(torch.tensor([7, 2]))) == [7, 2]


@pytest.mark.slow
def test_worker_processes_do_not_change_the_order(folder: Path):
    assert batches(opened(folder, 1, workers=2), 6) == batches(opened(folder, 1), 6)


def test_every_picture_comes_once_before_any_comes_again(folder: Path):
    seen = [number for batch in batches(opened(folder, COUNT), 5) for number in batch]
    assert sorted(seen[:COUNT]) == sorted(seen[COUNT : 2 * COUNT]) == list(range(COUNT))
    assert seen[:COUNT] != seen[COUNT:]


def test_processes_share_out_the_batch_of_one(folder: Path):
    whole = batches(opened(folder, 1), 4)
    halves = [batches(opened(folder, 1), 4, slice(2 * rank, 2 * rank + 2)) for rank in range(2)]
    assert [left + right for left, right in zip(*halves, strict=True)] == whole


@pytest.mark.parametrize("limit", [1, COUNT])
def test_an_order_goes_on_from_its_saved_state(folder: Path, limit: int):
    random, expected = torch.Generator().manual_seed(0), batches(opened(folder, limit), 7)
    order = Order(opened(folder, limit), 4, slice(None), random)
    assert [numbers(order.batch()) for _ in range(3)] == expected[:3]
    again = torch.Generator()
    again.set_state(random.get_state())
    other = Order(opened(folder, limit), 4, slice(None), again)
    other.load_state_dict(order.state_dict())
    assert [numbers(other.batch()) for _ in range(4)] == expected[3:]


def test_fewer_pictures_than_a_batch_come_several_times_in_it(folder: Path):
    assert sorted(batches(InMemory(opened(folder, COUNT).read(torch.arange(2))), 1, size=4)[0]) == [0, 0, 1, 1]


def test_a_broken_picture_is_an_error_or_its_neighbour_stands_twice(tmp_path: Path):
    for number in range(4):
        Image.fromarray(np.full((9, 9, 3), 10 * number, dtype=np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(DataError, match="1 of 4 images cannot be read"):
        batches(opened(tmp_path, 1), 1)
    found = batches(opened(tmp_path, 1, skip_broken=True), 1)[0]
    assert len(found) == 4
    assert set(found) == {0, 1, 3}
    for limit in (1, 4):
        pictures = opened(tmp_path, limit, skip_broken=True)
        order = Order(pictures, 4, slice(None), torch.Generator().manual_seed(0))
        order.batch()
        assert pictures.readable() == 3
        assert list(pictures.broken) == ["2.png"]
        # A run that goes on does not meet again what was met before.
        resumed = opened(tmp_path, limit, skip_broken=True)
        Order(resumed, 4, slice(None), torch.Generator()).load_state_dict(order.state_dict())
        assert resumed.broken == pictures.broken


def test_views_are_squares_of_the_picture_that_place_and_step_decide_on():
    images = torch.arange(2 * 3 * 10 * 10).view(2, 3, 10, 10)
    rng = CounterRNG(0, "views", torch.arange(2))
    views = random_views(images, 8, False, rng)
    assert torch.equal(random_views(images[1:], 8, False, CounterRNG(0, "views", torch.tensor([1]))), views[1:])
    corners = {int(random_views(images, 8, False, rng.with_step(step))[0, 0, 0, 0]) for step in range(60)}
    assert corners == {10 * y + x for y in range(3) for x in range(3)}
    assert torch.equal(random_views(images, 10, False, rng), images)
    assert torch.equal(middle_views(images, 8), images[..., 1:9, 1:9])


def test_about_half_of_the_views_are_mirrored():
    images = torch.arange(4).expand(400, 1, 1, 4)
    first = random_views(images, 4, True, CounterRNG(0, "views", torch.arange(400)))[:, 0, 0, 0]
    assert set(first.tolist()) == {0, 3}
    assert 150 < (first == 3).sum() < 250
