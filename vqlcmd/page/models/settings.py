"""The settings of sampling: steps, sampler and guidance, and the knobs that a model's method declares."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vqlcmd.generator import Generator
from vqlcmd.page.description import Setting
from vqlcmd.runtime.errors import ConfigError

MOST_STEPS = 200
"""The upper end of the slider for steps, unless the model samples with more."""
STRONGEST = 10.0
"""The upper end of the slider for guidance, unless the model samples with more."""


def settings(model: Generator) -> list[Setting]:
    """The settings that change this model's samples; their usual values are those of its training."""
    usual, method = model.sampling(), model.method
    found = []
    if _steps_count(model):
        # The chain of a method may be shorter.
        most = max((n for n in range(1, max(MOST_STEPS, usual.steps) + 1) if _accepts(model, steps=n)), default=1)
        found.append(Setting("steps", usual.steps, "", 1, most))
    if len(method.samplers) > 1:
        found.append(Setting("sampler", usual.sampler, "", choices=method.samplers))
    if model.class_names and method.class_drop:
        about = "0 is the model itself; above, a step takes two network calls."
        found.append(Setting("guidance", float(usual.guidance), about, 0, max(STRONGEST, usual.guidance)))
    described: Mapping[str, Any] = type(method).knobs.model_json_schema().get("properties", {})
    for name, each in described.items():
        if name not in usual.own:  # The model is older than the knob.
            continue
        low, high = (each.get(key, each.get(f"exclusive{key.title()}")) for key in ("minimum", "maximum"))
        choices = tuple(map(str, each.get("enum", ())))
        found.append(Setting(name, usual.own[name], each.get("description", ""), low, high, choices))
    return found


def varied(model: Generator, vary: str | None, values: str) -> list[dict[str, Any]]:
    """Keywords of Generator.sample, a dictionary for each of `values`, which commas separate; [{}] if nothing varies.

    Raises ConfigError if the model has no such setting, or does not accept a value.
    """
    if vary is None:
        return [{}]
    by_name = {each.name: each for each in settings(model)}
    if vary not in by_name:
        known = ", ".join(by_name) or "none"
        raise ConfigError(f"{vary} is nothing that can be set of {model.about['params']['method']}, which has {known}")
    words = [word.strip() for word in values.split(",") if word.strip()]
    if not words:
        raise ConfigError(f"{vary} needs values: write some with commas between them")
    found = [{vary: by_name[vary].parse(word)} for word in words]
    for how in found:
        model.sampling(**how)
    return found


def _steps_count(model: Generator) -> bool:
    """Whether the number of steps makes a difference: not for methods with one step per token."""
    one, two = (replace(model.sampling(), steps=steps) for steps in (1, 2))
    return model.method.steps(one) != model.method.steps(two)


def _accepts(model: Generator, **how: Any) -> bool:
    try:
        model.sampling(**how)
    except ConfigError:
        return False
    return True
