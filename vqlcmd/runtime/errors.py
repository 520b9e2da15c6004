"""What the user gave wrong: shown as one line, exit status 1, no traceback."""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


class UserError(Exception):
    """An error the user can fix. The message names the thing, the rule and the remedy in one line."""


class ConfigError(UserError):
    """A parameter is unknown, missing, mistyped, out of range, or impossible beside another one."""


class DataError(UserError):
    """A file or folder is missing, damaged, or not what its manifest or header says."""


class Interrupted(Exception):  # noqa: N818  (no error)
    """The run was asked to stop; its state is saved."""


class Diverged(Exception):  # noqa: N818
    """What the numbers did: a loss term stopped being one."""


LONGEST_SHOWN = 120
LONGEST_LINE, MOST_LINES = 10_000, 100
"""Of a whole message: twenty pictures that cannot be read, with the reason for each, are some 8,000 characters."""


def shown(value: object, at_most: int = LONGEST_SHOWN) -> str:
    """`value` as text for one line of a message: at most `at_most` characters, and none that a terminal would obey.

    White space is one blank, what is not printable stands as its escape; of what is too long the middle is left out.
    """
    text = str(value)
    if len(text) > 8 * at_most:
        # Cut first: escaping what somebody has made a megabyte long would take a while.
        text = f"{text[: 4 * at_most]}{text[-4 * at_most :]}"
    text = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in " ".join(text.split())
    )
    return (
        text if len(text) <= at_most else f"{text[: at_most // 2]}...{text[len(text) - (at_most - at_most // 2 - 3) :]}"
    )


def message(error: Exception) -> str:
    """What an error says, for a terminal: as `shown`, line by line, since of parameters several may be wrong."""
    return "\n".join(shown(line, LONGEST_LINE) for line in str(error).split("\n")[:MOST_LINES])


def shown_repr(value: object) -> str:
    """`repr` in one printable line: nested values and long ones, whose own would never end, are cut."""
    try:
        return shown(_SHORT.repr(value))
    except ValueError:
        return "a number of thousands of digits"
