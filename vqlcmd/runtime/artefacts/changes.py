"""Differences between what two runs were made from."""

import json
from collections.abc import Iterator
from typing import Any


def changed_files(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Files whose digests differ, or that only one of two runs had."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[Any]]:
    """{dotted key: [before, after]} of the values that differ."""
    old, new = dict(_flat(plain(before))), dict(_flat(plain(after)))
    return {
        key: [old.get(key), new.get(key)] for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)
    }


def plain(values: Any) -> Any:
    """`values` as they come back from JSON."""
    return json.loads(json.dumps(values))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
