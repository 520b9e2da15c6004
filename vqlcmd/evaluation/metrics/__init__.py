"""The metrics, one module each, whose name is the metric's name in `evaluate.metrics` of params.yaml.

A module has `measure(comparison)`, which returns {name: Measure}, or {} for a kind of images that it does not measure,
and `FEATURES`: "features" or "precision_features", the setting whose network is appended to these names, or None.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from vqlcmd.evaluation.comparison import Comparison, Measure
from vqlcmd.runtime.errors import ConfigError


def select(names: Sequence[str]) -> list[Any]:
    """The modules with these names. ConfigError for an unknown name."""
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    for name in names:
        if name not in known:
            raise ConfigError(f"evaluate.metrics: {name!r} is not one of {', '.join(known)}")
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def measure(comparison: Comparison) -> dict[str, Any]:
    """{name_network: value} of all metrics in `evaluate.metrics`, and the list `notes` unless it is empty.

    The reason for a value of None is in `notes`.
    """
    settings, found = comparison.settings, dict[str, Measure]()
    for metric in select(settings.metrics):
        ending = f"_{getattr(settings, metric.FEATURES)}" if metric.FEATURES else ""
        found |= {f"{name}{ending}": each for name, each in metric.measure(comparison).items()}
    notes = _notes(found)
    return {name: each.value for name, each in found.items()} | ({"notes": notes} if notes else {})


def _notes(found: Mapping[str, Measure]) -> list[str]:
    """The notes, one line each, starting with the names that share it."""
    shared: dict[str, list[str]] = {}
    for name, each in found.items():
        assert each.value is not None or each.note, name
        if each.note:
            shared.setdefault(each.note, []).append(name)
    return [f"{', '.join(names)}: {note}" for note, names in shared.items()]
