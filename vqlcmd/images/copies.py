"""Copies of one picture among the images of a source: found by their bytes, and kept together by the split."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vqlcmd.images.sources import ImageSource


def find_copies(source: ImageSource, on_image: Callable[[int], None] = lambda done: None) -> dict[int, int]:
    """{position of a copy: position of the first image with the same bytes}. Reads every image once, decodes none.

    What cannot be read is no copy. `on_image` is told how many are done. Takes 24 bytes an image.
    """
    digests = np.zeros(len(source), dtype=np.uint64)
    unread = []
    for i in range(len(source)):
        try:
            digests[i] = int.from_bytes(hashlib.blake2b(source.contents(i), digest_size=8).digest(), "big")
        except Exception:  # whatever is wrong with it is told when it is decoded
            unread.append(i)
        on_image(i + 1)
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    firsts = first[group]
    firsts[unread] = unread
    return {int(i): int(firsts[i]) for i in np.flatnonzero(firsts != np.arange(len(source)))}


def first_of(copies: dict[int, int], index: Tensor) -> Tensor:
    """Positions (n,), in which those of copies are replaced by that of the first image with the same bytes."""
    if not copies:
        return index
    known = torch.tensor(sorted(copies))
    firsts = torch.tensor([copies[position] for position in sorted(copies)])
    place = torch.searchsorted(known, index).clamp(max=len(known) - 1)
    return torch.where(known[place] == index, firsts[place], index)
