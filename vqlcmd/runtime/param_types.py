"""Kinds of text in parameters that a pattern cannot tell: each with its own rule and remedy."""

import re
from typing import Annotated

from PIL import ImageColor
from pydantic import BeforeValidator

from vqlcmd.runtime.errors import shown


def _digest(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[0-9a-fA-F]{64}", value):
        return value.lower()
    raise ValueError(f"{value!r} is no SHA-256 of 64 hexadecimal digits: `sha256sum FILE` prints it, null checks none")


def _colour(value: object) -> object:
    # Not all that Pillow takes: a colour with an alpha value of its own is no background.
    if isinstance(value, str) and (value.lower() in ImageColor.colormap or re.fullmatch(r"#[0-9a-fA-F]{6}", value)):
        return value.lower()
    raise ValueError(f"{shown(repr(value))} is no colour: give a name such as white, or '#rrggbb' in quotes")


Sha256 = Annotated[str, BeforeValidator(_digest)]
Colour = Annotated[str, BeforeValidator(_colour)]
"""A name of CSS, or #rrggbb; in small letters."""
