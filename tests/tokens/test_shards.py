"""Token shards: the same bytes for the same tokens, whole or absent, believed after a check; and batches of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.factory import codebook, integers
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.tokens import shards
from vqlcmd.tokens.shards import Split, class_count, heldout, read_codebook, read_header, read_split, write_shards

HEADER = {"tokens": 4, "codes": 100, "classes": ["cat", "dog"]}


def split(n: int, *, codes: int = 100, seed: int = 0) -> Split:
    return Split(integers(codes, n, 4, seed=seed), integers(2, n, seed=seed + 1), torch.arange(n) * 3)


def write(directory: Path, *, codes: int = 100, **splits: int) -> dict[str, Split]:
    made = {name: split(n, codes=codes) for name, n in splits.items()}
    write_shards(directory, made, {**HEADER, "codes": codes}, 4, codebook(codes))
    return made


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made = write(tmp_path / "tokens", train=10, heldout=3)
    for name in ("train", "heldout"):
        found = read_split(tmp_path / "tokens", name)
        assert torch.equal(found.tokens.long(), made[name].tokens)
        assert torch.equal(found.labels, made[name].labels)
        assert torch.equal(found.index, made[name].index)
    assert torch.equal(read_codebook(tmp_path / "tokens"), codebook(100))
    assert read_header(tmp_path / "tokens")["classes"] == ["cat", "dog"]
    names = sorted(path.name for path in (tmp_path / "tokens").glob("train-*.tar"))
    assert names == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]


@pytest.mark.parametrize("codes", [2**15, 2**16])
def test_tokens_up_to_65535_survive_the_trip(tmp_path: Path, codes: int) -> None:
    made = Split(torch.tensor([[0, 1, codes - 2, codes - 1]]), torch.zeros(1, dtype=torch.int64), torch.tensor([0]))
    write_shards(tmp_path / "tokens", {"train": made}, {**HEADER, "codes": codes}, 4)
    found = read_split(tmp_path / "tokens", "train")
    assert found.tokens.tolist() == made.tokens.tolist()
    assert found.batch(0, 0, 1)[0].tolist() == made.tokens.tolist()


@pytest.mark.parametrize("pieces", [1, 3, 4, 7, 10])
def test_splits_that_come_in_pieces_make_the_same_bytes(tmp_path: Path, pieces: int) -> None:
    made = write(tmp_path / "whole", train=10, heldout=3, empty=0)
    with shards.ShardWriter(tmp_path / "pieces", 4) as writer:
        for start in range(0, 10, pieces):
            for name, all_of_it in made.items():
                rows = slice(start, start + pieces)
                writer.add(name, Split(all_of_it.tokens[rows], all_of_it.labels[rows], all_of_it.index[rows]))
        writer.finish({**HEADER, "codes": 100}, codebook(100))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "pieces" / path.name).read_bytes()


def test_a_writer_that_does_not_finish_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "tokens", train=5)
    before = {path.name: path.read_bytes() for path in (tmp_path / "tokens").iterdir()}
    writer = shards.ShardWriter(tmp_path / "tokens", 4)
    with writer:
        writer.add("train", split(9))
    assert {path.name: path.read_bytes() for path in (tmp_path / "tokens").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


def test_an_empty_split_is_read_back_as_one(tmp_path: Path) -> None:
    write(tmp_path / "tokens", train=5, heldout=0)
    found = read_split(tmp_path / "tokens", "heldout")
    assert len(found) == 0
    assert found.tokens.shape == (0, 4)


def test_the_same_tokens_make_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, train=10, heldout=3)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert len(files) == 6
    for name in files:
        assert sha256(tmp_path / "one" / name) == sha256(tmp_path / "two" / name), name


def damage_digest(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "changed": (damage_digest, "differs from the digest"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-512]), "differs from the digest"),
    "missing": (lambda path: path.unlink(), "is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    write(tmp_path / "tokens", train=10)
    path = tmp_path / "tokens" / "train-000001.tar"
    act, words = DAMAGES[damage]
    act(path)
    with pytest.raises(DataError, match=words) as caught:
        read_split(tmp_path / "tokens", "train")
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def replace_header(directory: Path, text: str | None) -> None:
    path = directory / "header.json"
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "words"), [(None, "is missing"), ("{", "is not JSON"), (json.dumps({"format": 99}), "has format 99")]
)
def test_a_header_that_cannot_be_believed_is_refused_by_name(tmp_path: Path, text: str | None, words: str) -> None:
    write(tmp_path / "tokens", train=2)
    replace_header(tmp_path / "tokens", text)
    with pytest.raises(DataError, match=words) as caught:
        read_split(tmp_path / "tokens", "train")
    assert str(tmp_path / "tokens" / "header.json") in str(caught.value)


def test_a_split_or_codebook_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    write_shards(tmp_path / "tokens", {"train": split(2)}, HEADER, 4)
    with pytest.raises(DataError, match="has no split 'test', but train"):
        read_split(tmp_path / "tokens", "test")
    with pytest.raises(DataError, match=r"codebook\.npy is missing"):
        read_codebook(tmp_path / "tokens")


def test_the_old_directory_survives_when_writing_fails_midway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write(tmp_path / "tokens", train=10)["train"]

    def no_space(path: Path, values: dict[str, Any]) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(shards, "write_json", no_space)
        with pytest.raises(OSError, match="no space"):
            write(tmp_path / "tokens", train=6)
    assert torch.equal(read_split(tmp_path / "tokens", "train").tokens.long(), old.tokens)
    # What the failure left beside it does not get into the next one.
    write(tmp_path / "tokens", train=3)
    assert len(read_split(tmp_path / "tokens", "train")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


@pytest.mark.parametrize("size", [1, 4, 7, 10, 23])
def test_each_epoch_is_a_permutation_of_the_split(size: int) -> None:
    """Batches that straddle an epoch included; the tokens of image i are all i."""
    one = Split(torch.arange(10)[:, None].expand(10, 2), torch.arange(10), torch.arange(10))
    seen = torch.cat([one.batch(5, step, size)[1] for step in range(70 // size + 1)])
    epochs = [seen[start : start + 10].tolist() for start in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_a_batch_depends_on_its_seed_and_step_and_on_no_earlier_call() -> None:
    first, second = split(20), split(20)
    for step in range(9):
        first.batch(1, step, 6)
    for ours, theirs in zip(first.batch(1, 9, 6), second.batch(1, 9, 6), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(first.batch(2, 9, 6)[0], second.batch(1, 9, 6)[0])
    assert not torch.equal(first.batch(1, 8, 6)[0], second.batch(1, 9, 6)[0])


@pytest.mark.parametrize("processes", [2, 3])
def test_the_parts_of_several_processes_make_the_whole_batch(processes: int) -> None:
    one, size = split(20), 8
    parts = [slice(size * rank // processes, size * (rank + 1) // processes) for rank in range(processes)]
    for step in (0, 2, 5):
        columns = zip(*(one.batch(1, step, size, part) for part in parts), strict=True)
        for ours, whole in zip(columns, one.batch(1, step, size), strict=True):
            assert torch.equal(torch.cat(ours), whole)


def test_rows_are_places_in_the_batch_and_labels_stay_with_their_tokens() -> None:
    one = Split(torch.arange(20)[:, None].expand(20, 2), torch.arange(20), torch.arange(20))
    tokens, labels, rows = one.batch(1, 3, 8, slice(4, 8))
    assert rows.tolist() == [4, 5, 6, 7]
    assert tokens[:, 0].tolist() == labels.tolist()
    assert tokens.dtype == torch.int64


def test_an_image_is_held_out_by_its_position_alone_and_about_a_share_is() -> None:
    """10,000 images at 0.1: the count has standard deviation 30."""
    chosen = heldout(torch.arange(10_000), 0.1)
    assert torch.equal(heldout(torch.arange(10_000), 0.1), chosen)
    assert abs(int(chosen.sum()) - 1000) < 4 * 30
    some = torch.tensor([7, 9999, 123])
    assert torch.equal(heldout(some, 0.1), chosen[some])
    assert not (chosen & ~heldout(torch.arange(10_000), 0.2)).any()
    assert not heldout(torch.arange(100), 0.0).any()


def test_classes_count_only_where_they_are_used_and_guidance_needs_them() -> None:
    assert class_count(HEADER, True, 1.0) == 2
    assert class_count(HEADER, False, 0.0) == 0
    with pytest.raises(ConfigError, match=r"guidance is 1\.5, which needs classes"):
        class_count({**HEADER, "classes": []}, True, 1.5)
