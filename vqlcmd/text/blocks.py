"""Splits passages into training and held-out text, and cuts each of the two into blocks of N tokens.

The split of a passage is decided by its contents, so that copies of it are never in both. The passages of a split are
concatenated without a gap, and blocks are cut from this stream. Shapes: T tokens of a stream, P passages, N tokens of a
block.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from vqlcmd.tokens import shards

FILE_BITS = 32
CHUNK = 2**22
"""Tokens of a stream that are compared at once: 100 MB."""
BASE = np.uint64(0x9E3779B97F4A7C15)
"""Base of the rolling hash; odd, so that no bit of an early token is lost."""


@dataclass(frozen=True)
class Stream:
    """The tokens of a split, uint16 (T,), and where each passage begins: in `tokens` (P,) and in the files (P,)."""

    tokens: np.ndarray
    first: np.ndarray
    place: np.ndarray

    def blocks(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (n, length), and the place of each block's first token (n,). An incomplete last block is left out."""
        count = len(self.tokens) // length
        starts = np.arange(count) * length
        passage = np.searchsorted(self.first, starts, side="right") - 1
        places = self.place[passage] + starts - self.first[passage]
        return self.tokens[: count * length].reshape(count, length), places.astype(np.int64)


def place(file: int, token: int) -> int:
    """One number that encodes a file and a token's position in it."""
    return (file << FILE_BITS) + token


def file_and_token(number: int) -> tuple[int, int]:
    """(file, token) of a `place`."""
    return number >> FILE_BITS, number & (2**FILE_BITS - 1)


def deal(files: Iterable[Iterable[np.ndarray]], longest: int, holdout: float) -> dict[str, Stream]:
    """The streams `train` and `heldout` from the passages (n,) of each file; about a fraction `holdout` is held out.

    A passage of more than `longest` tokens is cut into several, so that a text without blank lines can be split too.
    """
    pieces, places, digests = list[np.ndarray](), list[int](), list[int]()
    for file, passages in enumerate(files):
        token = 0
        for passage in passages:
            for start in range(0, len(passage), longest):
                piece = passage[start : start + longest].astype(np.uint16)
                pieces.append(piece)
                places.append(place(file, token + start))
                digests.append(int.from_bytes(hashlib.blake2b(piece.tobytes(), digest_size=4).digest(), "little"))
            token += len(passage)
    held = shards.heldout(torch.tensor(digests, dtype=torch.int64), holdout).numpy()
    return {name: _joined(pieces, places, np.flatnonzero(rows)) for name, rows in (("train", ~held), ("heldout", held))}


def occurs(blocks: np.ndarray, stream: np.ndarray) -> np.ndarray:
    """Which of the blocks (n, N) occur in a stream (T,), at any position: (n,) bool."""
    length = blocks.shape[1]
    wanted = np.array([_rolling(block, length)[0] for block in blocks], dtype=np.uint64)
    known, first = np.unique(wanted, return_index=True)
    found = np.zeros(len(blocks), dtype=bool)
    if not len(blocks):
        return found
    for start in range(0, len(stream) - length + 1, CHUNK):
        hashes = _rolling(stream[start : start + CHUNK + length - 1], length)
        at = np.searchsorted(known, hashes).clip(max=len(known) - 1)
        for hit in np.flatnonzero(known[at] == hashes):
            # Equal hashes are only a hint, so the tokens are compared.
            if np.array_equal(stream[start + hit : start + hit + length], blocks[first[at[hit]]]):
                found[wanted == hashes[hit]] = True
    return found


def _rolling(tokens: np.ndarray, length: int) -> np.ndarray:
    """Hash of every window of `length` tokens: sum_j (x_j + 1) BASE^(length - 1 - j) modulo 2^64, by doubling."""
    power, width, hashes = BASE, 1, tokens.astype(np.uint64) + np.uint64(1)
    result, covered, rest = np.zeros(len(tokens) + 1, dtype=np.uint64), 0, length
    with np.errstate(over="ignore"):
        while rest:
            if rest & 1:
                # Windows of `covered` tokens, each extended by the window of `width` tokens that follows it.
                count = len(tokens) - covered - width + 1
                result = result[:count] * power + hashes[covered : covered + count]
                covered += width
            rest >>= 1
            if rest:
                count = len(tokens) - 2 * width + 1
                hashes = hashes[:count] * power + hashes[width : width + count]
                power, width = power * power, 2 * width
    return result


def _joined(pieces: list[np.ndarray], places: list[int], rows: np.ndarray) -> Stream:
    chosen = [pieces[row] for row in rows]
    ends = np.cumsum([len(piece) for piece in chosen], dtype=np.int64) if chosen else np.zeros(0, np.int64)
    first = ends - np.array([len(piece) for piece in chosen], dtype=np.int64)
    tokens = np.concatenate(chosen) if chosen else np.zeros(0, np.uint16)
    return Stream(tokens, first, np.array([places[row] for row in rows], dtype=np.int64))
