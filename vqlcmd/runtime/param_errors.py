"""What pydantic finds wrong with parameters, in one line that names the key, its value, the rule and the remedy."""

import difflib
from typing import Any

from pydantic import BaseModel


def line(problem: Any, model: type[BaseModel]) -> str:
    """One pydantic problem as: the key, its value, the rule, the remedy."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location) or "parameters"
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(location[-1], _keys_beside(location, model), n=1)
        remedy = f"did you mean `{close[0]}`?" if close else "remove it"
        return f"`{key}` is not a parameter: {remedy}"
    if problem["type"] == "missing":
        return f"`{key}` is missing: add it, presets/digits.yaml has every key"
    rule = problem["msg"].removeprefix("Value error, ")
    if not location or problem["type"] == "value_error":
        return rule if not location else f"`{key}`: {rule}"
    if problem["type"] == "string_pattern_mismatch":
        rule = "a name of letters, digits, _ and -"
    rule = rule.removeprefix("Input should be ").replace("a valid ", "a ")
    return f"`{key}` is {problem['input']!r}, but must be {rule}: change it there or with -S {key}=VALUE"


def _keys_beside(location: list[str], model: Any) -> list[str]:
    for part in location[:-1]:
        model = model.model_fields[part].annotation
    return list(model.model_fields)
