"""Finds byte-identical copies of an image in a source, so that the split keeps them on one side."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vqlcmd.images.sources import ImageSource


def find_copies(source: ImageSource, on_image: Callable[[int], None] = lambda done: None) -> dict[int, int]:
    """Maps the position of each copy to that of the first image with the same bytes: {copy: first}.

    Reads every image once and decodes none; an image that cannot be read is a copy of none. Calls `on_image` with the
    number of images done so far. Takes 24 bytes of memory an image.
    """
    digests = np.zeros(len(source), dtype=np.uint64)
    unread = []
    for i in range(len(source)):
        try:
            digests[i] = int.from_bytes(hashlib.blake2b(source.contents(i), digest_size=8).digest(), "big")
        except Exception:  # reported when the image is decoded
            unread.append(i)
        on_image(i + 1)
    _, first, group = np.unique(digests, return_index=True, return_inverse=True)
    firsts = first[group]
    firsts[unread] = unread
    return {int(i): int(firsts[i]) for i in np.flatnonzero(firsts != np.arange(len(source)))}


def first_of(copies: dict[int, int], index: Tensor) -> Tensor:
    """`index` (n,) with the position of every copy replaced by that of the first image with the same bytes."""
    if not copies:
        return index
    known = torch.tensor(sorted(copies))
    firsts = torch.tensor([copies[position] for position in sorted(copies)])
    place = torch.searchsorted(known, index).clamp(max=len(known) - 1)
    return torch.where(known[place] == index, firsts[place], index)
