"""JSON from outside: any bytes at all give a value or one line."""

import json
from pathlib import Path
from typing import Any

from vqlcmd.runtime.errors import DataError

DEEPEST = 100
"""Lists and objects within each other: no file of ours comes near, and what walks the value may call itself."""


def parse_json(text: str | bytes, where: object, remedy: str, *, nan: bool = False) -> Any:
    """The value of a JSON text. DataError, which names `where` and `remedy`, where it is none or nested without end.

    `nan`: whether NaN and the infinities, which Python writes and JSON has not, are numbers.
    """
    try:
        value = json.loads(text, parse_constant=float if nan else _no_number)
    except RecursionError:
        raise DataError(f"{where} is not JSON (nested too deep): {remedy}") from None
    except ValueError as error:  # Of text that is no UTF-8, and of numbers of more than 4,300 digits, too.
        raise DataError(f"{where} is not JSON ({' '.join(str(error).split())[:120]}): {remedy}") from None
    if _deeper(value, DEEPEST):
        raise DataError(f"{where} is nested more than {DEEPEST} deep: {remedy}")
    return value


def read_json(path: Path, remedy: str) -> Any:
    """As `parse_json`, of a file. DataError also where it is missing or cannot be read."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {remedy}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    return parse_json(text, path, remedy)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [item for items in inner for item in items]
        if not level:
            return False
    return True
