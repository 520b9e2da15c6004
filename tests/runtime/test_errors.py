"""What a message shows of somebody else's text: little, and nothing that a terminal obeys."""

import pytest

from vqlcmd.runtime.errors import shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain näme.png", "plain näme.png"),
        ("a\x1b[31mred\n\t\x00", "a\\x1b[31mred \\x00"),
        ("\u202egnp", r"\u202egnp"),
        ("\ud800", r"\ud800"),
        (17, "17"),
    ],
)
def test_what_is_not_printable_stands_as_its_escape(text: object, expected: str) -> None:
    assert shown(text) == expected


def test_of_what_is_too_long_both_ends_are_left() -> None:
    assert shown("a" * 10**7 + "z", 21) == "a" * 10 + "..." + "a" * 7 + "z"
    assert len(shown("a" * 10**7 + "z", 21)) == 21
    assert shown("a" * 21, 21) == "a" * 21
