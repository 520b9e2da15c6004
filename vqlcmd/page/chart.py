"""Where each code stands in the picture of all of them."""

MOST_PATCHES = 1024
"""In it: the first ones."""
PATCH, CELL = 40, 44
"""Pixels of one there, and from one to the next."""


def codes_in_a_row(count: int) -> int:
    """Of so many codes in all."""
    return max(round(count**0.5), 1)


def code_at(codes: int, x: int, y: int) -> int:
    """Of so many codes the one at a pixel; beside all of them, the last one of the row or of all."""
    count = min(codes, MOST_PATCHES)
    in_a_row = codes_in_a_row(count)
    return min(y // CELL * in_a_row + min(x // CELL, in_a_row - 1), count - 1)
