"""What a message shows of somebody else's text: little, and nothing that a terminal obeys."""

import errno
import os

import pytest

from vqlcmd.cli import main
from vqlcmd.runtime import launcher
from vqlcmd.runtime.errors import LONGEST_LINE, ConfigError, UserError, message, shown


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


HOSTILE = "\x1b[2J\u202e" * 10**5


def test_a_message_is_shown_line_by_line() -> None:
    """Of parameters several may be wrong at once."""
    assert message(UserError("one: 1\ntwo: \x1b[2J")) == "one: 1\ntwo: \\x1b[2J"
    lines = message(UserError(f"{HOSTILE}\n" * 1000)).split("\n")
    assert len(lines) == 100
    assert all(line.isprintable() and len(line) <= LONGEST_LINE for line in lines)


@pytest.mark.parametrize(
    "error",
    [
        ConfigError(f"vqgan.checkpoint is {HOSTILE}, which is not a file"),
        OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), HOSTILE),
        RuntimeError(f"out of memory {HOSTILE}"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whoever_reports_an_error_reports_it_short_and_in_plain_characters(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not every message is made with care: a checkpoint called by a megabyte of escapes reached the terminal."""

    def fail() -> None:
        raise error

    assert launcher.main("train", fail, parallel=False) == 1
    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit):
        main.main()
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["train", "vqlcmd"]
    assert all(line.isprintable() and len(line) < LONGEST_LINE + 100 for line in lines)
