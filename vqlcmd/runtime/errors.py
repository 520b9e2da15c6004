"""Errors that the user can fix, shown as one line with exit status 1 and no traceback, and ends of a run."""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


class UserError(Exception):
    """An error the user can fix. The message names the thing, the rule and the remedy in one line."""


class ConfigError(UserError):
    """A parameter is unknown, missing, mistyped, out of range, or impossible in combination with another one."""


class DataError(UserError):
    """A file or folder is missing, damaged, or not what its manifest or header says."""


class Interrupted(Exception):  # noqa: N818  (no error)
    """The run was asked to stop; its state is saved."""


class Diverged(Exception):  # noqa: N818
    """The training has diverged: a loss term is not finite."""


LONGEST_SHOWN = 120
LONGEST_LINE, MOST_LINES = 10_000, 100
"""Limits of a whole message: twenty pictures that cannot be read, with their reasons, take some 8,000 characters."""


def shown(value: object, at_most: int = LONGEST_SHOWN) -> str:
    """`value` as text for one line of a message: at most `at_most` characters, all of them printable.

    White space becomes single blanks, unprintable characters become escapes, and the middle of a long text is left out.
    """
    text = str(value)
    if len(text) > 8 * at_most:
        # Cut first, since escaping a text of a megabyte would take a while.
        text = f"{text[: 4 * at_most]}{text[-4 * at_most :]}"
    text = "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in " ".join(text.split())
    )
    return (
        text if len(text) <= at_most else f"{text[: at_most // 2]}...{text[len(text) - (at_most - at_most // 2 - 3) :]}"
    )


def message(error: Exception) -> str:
    """The message of an error for a terminal, each line as in `shown`. Wrong parameters have a line each."""
    return "\n".join(shown(line, LONGEST_LINE) for line in str(error).split("\n")[:MOST_LINES])


def shown_repr(value: object) -> str:
    """`repr` in one printable line; nested and long values, whose own might never end, are cut."""
    try:
        return shown(_SHORT.repr(value))
    except ValueError:
        return "a number of thousands of digits"
