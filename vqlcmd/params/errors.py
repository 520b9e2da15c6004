"""pydantic's errors about parameters, each as a line that names the key, its value, the rule and the remedy."""

import difflib
from typing import Any

from pydantic import BaseModel

from vqlcmd.runtime.errors import shown, shown_repr

RENAMED = {
    "train.embedding_rate": "train.embedding_lr_scale",
    "train.final_rate": "train.final_lr_ratio",
    "vqgan.fit.painting_share": "vqgan.fit.decoder_only_fraction",
    "reference.judge": "reference.proxy",
    "sample.temperature": "sample.maskgit.temperature",
    "sample.truncation": "sample.vq_diffusion.truncation",
}
"""{former name of a key: its present name}."""
MOST_LINES = 20
"""The most lines about one file, which may be another file altogether."""


def lines(problems: list[Any], model: type[BaseModel]) -> list[str]:
    """One line for each of pydantic's problems; a renamed key is one problem, although its new name is missing too."""
    keys = [".".join(str(part) for part in problem["loc"]) for problem in problems]
    told = tuple(RENAMED[key] for key in keys if key in RENAMED)
    kept = [
        problem
        for key, problem in zip(keys, problems, strict=True)
        if not (problem["type"] == "missing" and any(f"{new}.".startswith(f"{key}.") for new in told))
    ]
    more = [f"and {len(kept) - MOST_LINES} more like these"] if len(kept) > MOST_LINES else []
    return [line(problem, model) for problem in kept[:MOST_LINES]] + more


def line(problem: Any, model: type[BaseModel]) -> str:
    """One of pydantic's problems as a line: the key, its value, the rule, the remedy."""
    location = [str(part) for part in problem["loc"]]
    key = shown(".".join(location)) or "parameters"
    if problem["type"] == "extra_forbidden" and key in RENAMED:
        return f"`{key}` is called `{RENAMED[key]}` now: rename it"
    if key == "discrete.schedule" and isinstance(problem["input"], str):
        return f"`{key}` is called `{key}.vq_diffusion` now, beside `{key}.d3pm`: presets/digits.yaml has both"
    if key.startswith("evaluate.") and problem["input"] == "judge":
        return f"`{key}` is 'judge', which is called 'proxy' now: change it there or with -S {key}=proxy"
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(location[-1], _keys_beside(location, model), n=1)
        remedy = f"did you mean `{close[0]}`?" if close else "remove it"
        return f"`{key}` is not a parameter: {remedy}"
    if problem["type"] == "missing":
        return f"`{key}` is missing: add it, presets/digits.yaml has every key"
    if not location or problem["type"] == "value_error":
        return rule(problem) if not location else f"`{key}`: {rule(problem)}"
    value = shown_repr(problem["input"])
    return f"`{key}` is {value}, but must be {rule(problem)}: change it there or with -S {key}=VALUE"


def rule(problem: Any) -> str:
    """What a value must be, in words that follow "must be"."""
    if problem["type"] == "string_pattern_mismatch":
        return "a name of letters, digits, _ and -"
    text = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return text.replace("a valid ", "a ")


def _keys_beside(location: list[str], model: Any) -> list[str]:
    for part in location[:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
        # A section to which other modules add keys has `complete`, which returns it with them.
        model = getattr(model, "complete", lambda model=model: model)()
    return list(getattr(model, "model_fields", {}))
