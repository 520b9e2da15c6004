"""Blocks: each says where it is from, copies are on one side, and a held-out block is nowhere in the training text."""

import random

import numpy as np
import pytest

from vqlcmd.text import blocks

LENGTH = 8


def passages(seed: int, count: int, codes: int = 5) -> list[np.ndarray]:
    drawn = random.Random(seed)
    return [np.array([drawn.randrange(codes) for _ in range(drawn.randint(1, 40))]) for _ in range(count)]


def test_a_block_begins_where_it_says_and_follows_its_passage() -> None:
    files = [passages(seed, 50, codes=300) for seed in range(3)]
    joined = [np.concatenate(file) for file in files]
    ends = [np.cumsum([len(passage) for passage in file]) for file in files]
    for stream in blocks.deal(files, 17, 0.3).values():
        tokens, places = stream.blocks(LENGTH)
        assert len(tokens) > 20
        for block, number in zip(tokens, places.tolist(), strict=True):
            file, token = blocks.file_and_token(number)
            # Up to the end of its passage, or of its piece of one, whichever comes first.
            passage_end = int(ends[file][np.searchsorted(ends[file], token, side="right")])
            start = passage_end - len(files[file][int(np.searchsorted(ends[file], token, side="right"))])
            piece_end = start + ((token - start) // 17 + 1) * 17
            until = min(passage_end, piece_end, token + LENGTH) - token
            assert until > 0
            assert np.array_equal(block[:until], joined[file][token : token + until])


def test_every_token_is_on_one_side_and_in_its_order() -> None:
    (file,) = files = [passages(0, 200)]
    streams = blocks.deal(files, 10**6, 0.4)
    assert sum(len(stream.tokens) for stream in streams.values()) == sum(map(len, file))
    for stream in streams.values():
        assert (np.diff(stream.place) > 0).all()
    share = len(streams["heldout"].tokens) / sum(map(len, file))
    assert 0.25 < share < 0.55


def test_copies_of_a_passage_are_on_one_side_wherever_they_stand() -> None:
    once = [passage for passage in passages(1, 80, codes=9) if len(passage) > 5]
    shuffled = random.Random(5).sample(once, len(once))
    sides = {name: stream.place for name, stream in blocks.deal([once, shuffled], 10**6, 0.5).items()}
    starts = [{int(place): index for index, place in enumerate(_starts(file))} for file in (once, shuffled)]
    side_of: dict[bytes, set[str]] = {}
    for name, places in sides.items():
        for file, token in map(blocks.file_and_token, places.tolist()):
            passage = (once, shuffled)[file][starts[file][token]]
            side_of.setdefault(passage.tobytes(), set()).add(name)
    assert {len(names) for names in side_of.values()} == {1}
    assert set.union(*side_of.values()) == {"train", "heldout"}


def _starts(file: list[np.ndarray]) -> list[int]:
    return [0, *np.cumsum([len(passage) for passage in file])[:-1].tolist()]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8])
def test_a_block_occurs_where_a_search_finds_it(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "CHUNK", 64)
    drawn = np.random.default_rng(0)
    stream = drawn.integers(0, 3, 700).astype(np.uint16)
    wanted = drawn.integers(0, 3, (100, length)).astype(np.uint16)
    text = "".join(map(str, stream))
    expected = ["".join(map(str, block)) in text for block in wanted]
    assert blocks.occurs(wanted, stream).tolist() == expected
    assert length < 7 or 0 < sum(expected) < 100
    # At every place of the stream, also across chunks and at its end.
    windows = np.lib.stride_tricks.sliding_window_view(stream, length)
    assert blocks.occurs(windows, stream).all()


def test_equal_hashes_of_different_tokens_are_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_rolling", lambda tokens, length: np.zeros(len(tokens) - length + 1, np.uint64))
    stream = np.array([1, 2, 3, 4], dtype=np.uint16)
    assert blocks.occurs(np.array([[9, 9]], dtype=np.uint16), stream).tolist() == [False]


def test_a_stream_that_is_too_short_makes_no_block() -> None:
    streams = blocks.deal([[np.array([1, 2, 3])]], 10, 0.0)
    tokens, places = streams["train"].blocks(4)
    assert tokens.shape == (0, 4)
    assert len(places) == 0
    assert not len(blocks.occurs(tokens, streams["train"].tokens))
    assert streams["heldout"].blocks(4)[0].shape == (0, 4)
