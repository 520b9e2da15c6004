"""A metric is a file here, and its name in `evaluate.metrics` of params.yaml is the file's.

The file holds `FEATURES`, one of features, precision_features and None, whose network ends the names of its values,
and `measure(comparison)`, which gives {name: Measure}, and {} where the images are of a kind that it does not measure.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from vqlcmd.evaluation.comparison import Comparison, Measure
from vqlcmd.runtime.errors import ConfigError


def select(names: Sequence[str]) -> list[Any]:
    """The modules of these names. ConfigError for a name that is no metric."""
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    for name in names:
        if name not in known:
            raise ConfigError(f"evaluate.metrics: {name!r} is not one of {', '.join(known)}")
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def measure(comparison: Comparison) -> dict[str, Any]:
    """{name_network: value} of all metrics in `evaluate.metrics`; `notes`, where there is something to note.

    A value of None has its reason in `notes`.
    """
    settings, found = comparison.settings, dict[str, Measure]()
    for metric in select(settings.metrics):
        ending = f"_{getattr(settings, metric.FEATURES)}" if metric.FEATURES else ""
        found |= {f"{name}{ending}": each for name, each in metric.measure(comparison).items()}
    notes = _notes(found)
    return {name: each.value for name, each in found.items()} | ({"notes": notes} if notes else {})


def _notes(found: Mapping[str, Measure]) -> list[str]:
    """One line for names that share a note."""
    shared: dict[str, list[str]] = {}
    for name, each in found.items():
        assert each.value is not None or each.note, name
        if each.note:
            shared.setdefault(each.note, []).append(name)
    return [f"{', '.join(names)}: {note}" for note, names in shared.items()]
