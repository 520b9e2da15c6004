"""Where each code is in the picture of all codes."""

MOST_PATCHES = 1024
"""The most codes in the picture: the first ones."""
PATCH, CELL = 40, 44
"""The side of a patch in the picture, and the distance from one patch to the next, in pixels."""


def codes_in_a_row(count: int) -> int:
    """How many of `count` codes are in a row of the picture."""
    return max(round(count**0.5), 1)


def code_at(codes: int, x: int, y: int) -> int:
    """Which of `codes` codes is at pixel (x, y) of the picture; beside the patches, the last of the row or of all."""
    count = min(codes, MOST_PATCHES)
    in_a_row = codes_in_a_row(count)
    return min(y // CELL * in_a_row + min(x // CELL, in_a_row - 1), count - 1)
