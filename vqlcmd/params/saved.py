"""The parameters in a model's file, of any version: those that build and sample the model matter, and no others.

A method names the keys that build it, `Method.built_by`. The others are of training alone: a file may lack them, or
have some that this version does not know, and the model is the same.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError, create_model

from vqlcmd.params import ModelParams
from vqlcmd.params.errors import rule
from vqlcmd.params.sections import Discrete, Train, first_chains
from vqlcmd.params.types import Section
from vqlcmd.runtime.errors import shown, shown_repr

ALWAYS = ("seed", "method")
TRAINING = "train"
"""The section that plays no part in building a method."""
ADDED: dict[str, Any] = {"likelihood": False, "self_conditioning": 0.0, "network.positions": "sinusoidal"}
"""Keys that build a model and were added later, with the value by which all earlier models were built."""
UNREAD: dict[str, Any] = {
    "lambda_rec": 0.0,
    "lambda_diff": 0.0,
    "lambda_cm": 0.0,
    "lambda_ce": 0.0,
    "consistency_step": "model",
    "consistency_time": "uniform",
    "consistency_gradient": "full",
    "drop_reconstruction": True,
    "drop": 0.0,
    "dropping": "fixed",
}
UNREAD_OF_TRAIN: dict[str, Any] = {"batch_size": 1, "init_std": 1.0, "class_drop": 0.0}
"""Replace keys that a file lacks, and that build a method without affecting its samples or its bound."""


def of_training(values: Mapping[str, Any], built_by: Iterable[str]) -> list[str]:
    """The dotted keys of `values` that do not build the model; a section is one key if nothing in it does."""
    builds = (*ALWAYS, *built_by)
    found: set[str] = set()
    for key in _leaves(values):
        parts = key.split(".")
        heads = [".".join(parts[: end + 1]) for end in range(len(parts))]
        if not _under(key, builds):
            found.add(next(head for head in heads if not any(_under(built, [head]) for built in builds)))
    return sorted(found)


def read(values: Mapping[str, Any], built_by: Iterable[str], ignored: Iterable[str]) -> ModelParams:
    """The parameters in `values` that `built_by` names, checked; all other keys may be missing, or mean nothing.

    `ignored` are keys that the file declares to be of training. Raises ValueError, which says why, if this version
    cannot build the model.
    """
    values, ignored = _completed(values), [*ignored, TRAINING]
    unknown = [key for key in _leaves(values) if not _known(key) and not _under(key, ignored)]
    if unknown:
        raise ValueError(f"it has `{shown(unknown[0])}`, which this version does not know")
    builds = [*ALWAYS, *built_by]
    try:
        checked = part(ModelParams, builds).model_validate_json(json.dumps(_picked(values, builds)), strict=False)
    except ValidationError as error:
        problem = error.errors()[0]
        key = shown(".".join(map(str, problem["loc"])))
        if problem["type"] == "missing":
            raise ValueError(f"it does not say `{key}`, which builds the model") from None
        raise ValueError(f"`{key}` is {shown_repr(problem['input'])}, which here must be {rule(problem)}") from None
    train = Train.model_construct(**_kept(Train, values.get(TRAINING), UNREAD_OF_TRAIN))
    return ModelParams.model_construct(**{**_kept(ModelParams, values, UNREAD), **dict(checked), TRAINING: train})


def _completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with those of ADDED that they lack, in sections that they have."""
    found = dict(values)
    for key, value in ADDED.items():
        section, _, name = key.rpartition(".")
        if not section:
            found.setdefault(name, value)
        elif isinstance(found.get(section), Mapping):
            found[section] = {name: value, **found[section]}
    return found


def part(section: type[Section], keys: Iterable[str]) -> type[Section]:
    """`section` with only those fields, or parts of them, that the dotted keys name."""
    within: dict[str, list[str]] = {}
    for key in keys:
        name, _, rest = key.partition(".")
        within.setdefault(name, []).append(rest)
    fields: dict[str, Any] = {}
    for name, rests in within.items():
        field = section.model_fields[name]
        inner: Any = field.annotation
        whole = "" in rests or not (isinstance(inner, type) and issubclass(inner, Section))
        fields[name] = (field.rebuild_annotation() if whole else part(inner, rests), ...)
    return create_model(section.__name__, __base__=Section, **fields)


def _picked(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The parts of `values` that the dotted keys name."""
    found: dict[str, Any] = {}
    for key in keys:
        here, there, (*above, last) = values, found, key.split(".")
        for name in above:
            here = here.get(name) if isinstance(here, Mapping) else None
            there = there.setdefault(name, {})
        if isinstance(here, Mapping) and last in here:
            there[last] = here[last]
    if "schedule" in found.get("discrete", {}):
        # Every method has a schedule, and the file need not know those of the others.
        own = [key.rpartition(".")[2] for key in keys if key.startswith("discrete.schedule.")]
        others = {name: each for name, each in first_chains().items() if name not in own}
        found["discrete"]["schedule"] |= others
    return found


def _kept(section: type[Section], values: Any, usual: Mapping[str, Any]) -> dict[str, Any]:
    """`usual`, with each value replaced by the file's, if it has one that this version accepts."""
    found = dict(usual)
    for name in usual if isinstance(values, Mapping) else ():
        try:
            found[name] = TypeAdapter(section.model_fields[name].rebuild_annotation()).validate_python(values[name])
        except (ValidationError, KeyError):
            continue
    return found


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _known(key: str) -> bool:
    section: Any = ModelParams
    for name in key.split("."):
        if section is Discrete and name == "schedule":
            return key.removeprefix("discrete.schedule.") in first_chains()
        fields = getattr(section, "model_fields", {})
        if name not in fields:
            return False
        section = fields[name].annotation
    return True


def _under(key: str, names: Iterable[str]) -> bool:
    return any(f"{key}.".startswith(f"{name}.") for name in names)
