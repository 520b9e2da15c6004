"""Tokens that do not fit into memory: the same images in windows, every one once an epoch, at the same steps always."""

from pathlib import Path

import pytest
import torch

from tests.factory import CODES, TOKENS, integers
from vqlcmd.tokens.shards import Split, read_split, write_shards
from vqlcmd.tokens.streaming import StreamedSplit, open_split

COUNT, EACH = 103, 2 * TOKENS + 16
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """103 images in shards of 10; an image's first two tokens are its number in base CODES^2, roughly."""
    folder = tmp_path_factory.mktemp("tokens") / "tokens"
    numbers = torch.arange(COUNT)
    tokens = integers(CODES, COUNT, TOKENS)
    tokens[:, 0], tokens[:, 1], tokens[:, 2] = numbers % CODES, numbers // CODES % CODES, numbers // CODES**2
    header = {"tokens": TOKENS, "codes": CODES, "classes": ["a", "b", "c"]}
    write_shards(folder, {"train": Split(tokens, numbers % 3, numbers)}, header, 10)
    return folder


def numbers(tokens: torch.Tensor) -> list[int]:
    return (tokens[:, 0] + CODES * tokens[:, 1] + CODES**2 * tokens[:, 2]).tolist()


def streamed(directory: Path, window: int = 30) -> StreamedSplit:
    return StreamedSplit(directory, "train", window, CPU)


def test_an_epoch_holds_every_image_once_and_the_next_one_in_another_order(directory: Path) -> None:
    split = streamed(directory)
    seen = [number for step in range(2 * COUNT) for number in numbers(split.batch(0, step, 1)[0])]
    assert sorted(seen[:COUNT]) == sorted(seen[COUNT:]) == list(range(COUNT))
    assert seen[:COUNT] != seen[COUNT:]
    assert seen[:COUNT] != list(range(COUNT))


def test_images_keep_their_classes_and_rows_are_places_in_the_batch(directory: Path) -> None:
    tokens, labels, rows = streamed(directory).batch(3, 2, 16)
    assert labels.tolist() == [number % 3 for number in numbers(tokens)]
    assert rows.tolist() == list(range(16))


def test_a_batch_depends_on_the_seed_and_the_step_and_not_on_those_before(directory: Path) -> None:
    """Resumed at any step, in any order, on a part of the batch: the same images."""
    walked, size = streamed(directory), 24
    batches = [walked.batch(5, step, size)[0] for step in range(12)]
    for step in (11, 3, 0, 7):
        assert torch.equal(streamed(directory).batch(5, step, size)[0], batches[step])
        halves = [streamed(directory).batch(5, step, size, slice(12 * part, 12 * part + 12))[0] for part in (0, 1)]
        assert torch.equal(torch.cat(halves), batches[step])
    assert not torch.equal(streamed(directory).batch(6, 0, size)[0], batches[0])


def test_no_more_than_two_windows_and_the_next_stay_in_memory(directory: Path) -> None:
    split = streamed(directory, window=10)
    for step in range(40):
        split.batch(0, step, 7)
        assert len(split._windows) <= 3


def test_a_window_mixes_its_shards(directory: Path) -> None:
    """The first 30 images of an epoch come from three shards and not in the shards' order."""
    tokens = torch.cat([streamed(directory).batch(1, step, 10)[0] for step in range(3)])
    shards = [number // 10 for number in numbers(tokens)]
    assert len(set(shards)) <= 4
    assert shards != sorted(shards, key=shards.index)


def test_what_fits_is_read_at_once_and_what_does_not_is_streamed_and_said(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = open_split(directory, "train", CPU, COUNT * EACH)
    assert isinstance(whole, Split)
    assert capsys.readouterr().out == ""
    part = open_split(directory, "train", CPU, COUNT * EACH - 1)
    assert isinstance(part, StreamedSplit)
    assert "103 sequences" in capsys.readouterr().out
    assert len(part) == len(whole) == COUNT
    assert torch.equal(part.first(4)[0], read_split(directory, "train").first(4)[0])
    assert sorted(numbers(part.batch(0, 0, COUNT)[0])) == list(range(COUNT))
