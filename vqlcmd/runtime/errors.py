"""What the user gave wrong: shown as one line, exit status 1, no traceback."""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


class UserError(Exception):
    """An error the user can mend. The message names the thing, the rule and the remedy in one line."""


class ConfigError(UserError):
    """A parameter is unknown, missing, mistyped, out of range, or impossible beside another one."""


class DataError(UserError):
    """A file or folder is missing, damaged, or not what its manifest or header says."""


class Interrupted(Exception):  # noqa: N818  (no error)
    """The run was asked to stop; its state is saved."""


class Diverged(Exception):  # noqa: N818
    """What the numbers did: a loss term stopped being one."""


def brief(value: object, at_most: int = 120) -> str:
    """One printable line of `at_most` characters: what a file says may be long, and may hold control characters."""
    line = " ".join((value if isinstance(value, str) else str(value))[: 8 * at_most].split())
    escaped = "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in line)
    return escaped if len(escaped) <= at_most else f"{escaped[: at_most - 3]}..."


def brief_repr(value: object) -> str:
    """`repr` in one printable line: nested values and long ones, whose own would never end, are cut."""
    try:
        return brief(_SHORT.repr(value))
    except ValueError:
        return "a number of thousands of digits"
