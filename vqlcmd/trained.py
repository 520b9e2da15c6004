"""A trained method with its file's metadata, which has the default sampling settings."""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import ValidationError

from vqlcmd.diffusion.method import Method
from vqlcmd.params import Sampling
from vqlcmd.params.errors import rule
from vqlcmd.params.saved import part
from vqlcmd.precision import FLOAT32, PRECISIONS
from vqlcmd.runtime.errors import ConfigError, shown_repr


class _Knobs(dict[str, Any]):
    """The sampling parameters in the model's file. ConfigError where a sampler reads one that was introduced later."""

    def __missing__(self, name: str) -> Any:
        raise ConfigError(
            f"the model was trained before there was `{name}`, which this way of sampling needs: give a value for it"
        )


class Trained:
    """A trained method that samples as params.yaml said in training, except for settings that are given.

    `about` is the metadata of the model's file. Derived classes turn tokens into images or text.
    """

    def __init__(self, method: Method, about: Mapping[str, Any], device: torch.device):
        self.method, self.about, self.device = method, about, device

    def sampling(
        self,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        precision: str | None = None,
        **own: Any,
    ) -> Sampling:
        """The model's sampling settings, with those that are given replaced; `own` are parameters of its method.

        ConfigError, in one line, for a parameter that the method does not have or an invalid value.
        """
        usual = self.about["sampling"]
        given = {name: value for name, value in own.items() if value is not None}
        known = type(self.method).knobs.model_fields
        for name in given:
            if name not in known:
                has = ", ".join(known) or "none"
                raise ConfigError(f"{name} is not a knob of {self.about['params']['method']}, which has {has}")
        values = {**usual["own"], **given}
        try:
            knobs = part(type(self.method).knobs, values).model_validate(values).model_dump()
        except ValidationError as error:
            problem = error.errors()[0]
            raise ConfigError(f"{problem['loc'][0]} is {problem['input']!r}, but must be {rule(problem)}") from None
        how = Sampling(
            usual["steps"] if steps is None else steps,
            usual["sampler"] if sampler is None else sampler,
            usual["guidance"] if guidance is None else guidance,
            _Knobs(knobs),
            precision or usual.get("precision") or FLOAT32,
        )
        if how.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise ConfigError(f"precision is {shown_repr(how.precision)}, but must be one of {known}")
        self.method.check(how)
        return how
