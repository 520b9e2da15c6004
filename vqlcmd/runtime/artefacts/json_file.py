"""JSON from outside: any bytes give a value or an error of one line."""

import json
from pathlib import Path
from typing import Any

from vqlcmd.runtime.errors import DataError

DEEPEST = 100
"""The most levels of lists and objects: no file of ours comes near, and code that walks the value may recurse."""


def parse_json(text: str | bytes, where: object, remedy: str, *, nan: bool = False) -> Any:
    """The value of a JSON text. DataError, which names `where` and `remedy`, if it is not JSON or is nested too deep.

    `nan` accepts NaN and the infinities, which Python writes although JSON does not have them.
    """
    try:
        value = json.loads(text, parse_constant=float if nan else _no_number)
    except RecursionError:
        raise DataError(f"{where} is not JSON (nested too deep): {remedy}") from None
    except ValueError as error:  # Also for text that is not UTF-8, and for numbers of more than 4,300 digits.
        raise DataError(f"{where} is not JSON ({' '.join(str(error).split())[:120]}): {remedy}") from None
    if _deeper(value, DEEPEST):
        raise DataError(f"{where} is nested more than {DEEPEST} deep: {remedy}")
    return value


def read_json(path: Path, remedy: str) -> Any:
    """Like `parse_json`, for a file. Raises DataError also if the file is missing or cannot be read."""
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
