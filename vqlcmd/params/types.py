"""Types of the values in params.yaml: numbers in their ranges, and names from a registry in the code."""

import importlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from PIL import ImageColor
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from vqlcmd.runtime.errors import shown


class Section(BaseModel):
    """A part of params.yaml: every key is required, no other is accepted, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _whole(value: object) -> object:
    # `-S train_steps=1e3` arrives as 1000.0.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _digest(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{64}", value):
        return value.lower()
    raise ValueError(
        f"{shown(repr(value))} is no SHA-256 of 64 hexadecimal digits: `sha256sum FILE` prints it, null checks none"
    )


def _colour(value: object) -> object:
    # Stricter than Pillow: a colour with an alpha value of its own is no background.
    if isinstance(value, str) and (value.lower() in ImageColor.colormap or re.fullmatch(r"#[0-9a-fA-F]{6}", value)):
        return value.lower()
    raise ValueError(f"{shown(repr(value))} is no colour: give a name such as white, or '#rrggbb' in quotes")


def one_of(registry: str) -> AfterValidator:
    """Accepts the keys of the dictionary `module:NAME`, or those that a function of that name returns.

    There is no other list of them. Parameters are below the code that they name, so the module is imported only when a
    value is checked.
    """
    module, _, name = registry.partition(":")

    def check(value: str) -> str:
        listed: Any = getattr(importlib.import_module(module), name)
        listed = listed() if callable(listed) else listed
        known = [str(each) for each in cast("Iterable[str]", listed)]
        if value not in known:
            raise PydanticCustomError("unknown_name", "{expected}", {"expected": _either(known)})
        return value

    return AfterValidator(check)


def _either(names: list[str]) -> str:
    *most, last = [repr(name) for name in names]
    return f"{', '.join(most)} or {last}" if most else last


def _metric(value: str) -> str:
    # By the names of files, since only one stage imports the metrics.
    folder = Path(__file__).parents[1] / "evaluation" / "metrics"
    known = sorted(file.stem for file in folder.glob("*.py") if file.stem != "__init__")
    if value not in known:
        raise PydanticCustomError("unknown_name", "{expected}", {"expected": _either(known)})
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[Whole, Field(gt=0, le=10**9)]
Dimension = Annotated[Whole, Field(gt=0, le=65_536)]
"""Sizes of vectors, heads, channels. The limit is far beyond any network, and products of sizes still fit 64 bits."""
Batch = Annotated[Whole, Field(gt=0, le=65_536)]
"""Images at once, over all processes."""
Steps = Annotated[Whole, Field(gt=0, le=10**6)]
"""Steps of a chain or of a sampler, for each of which there is a row of a table."""
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]
Positive = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, le=1e3, allow_inf_nan=False)]
"""A learning rate."""
Share = Annotated[float, Field(ge=0, lt=1)]
LogSnr = Annotated[float, Field(ge=-80, le=80, allow_inf_nan=False)]
"""A log SNR, or a shift of one. Beyond these limits, its exponential leaves the range of float32."""
Sha256 = Annotated[str, BeforeValidator(_digest)]
Colour = Annotated[str, BeforeValidator(_colour)]
"""A colour's name in CSS, or #rrggbb; in lower case."""
Decays = Annotated[
    list[Share], BeforeValidator(lambda v: v if isinstance(v, list) else [v]), Field(min_length=1, max_length=16)
]
Metric = Annotated[str, AfterValidator(_metric)]
Precision = Literal["float32", "tf32", "bf16"]
"""The precision of matrix products and convolutions: vqlcmd/precision.py."""
Extractor = Literal["proxy", "inception", "efficientnet", "dinov2", "clip", "vgg16"]
"""Networks from whose features metrics are computed; the metrics' names end in theirs."""
