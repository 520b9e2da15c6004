"""Describes a model in words and numbers."""

from pathlib import Path

from vqlcmd.generator import Generator
from vqlcmd.page.description import Description
from vqlcmd.page.models import codes
from vqlcmd.page.models.settings import settings

CURVES = Path("metrics") / "train.tsv"
"""The curves of its training, relative to the folder above the model's, as the pipeline has it."""


def describe(model: Generator, folder: str) -> Description:
    """What the page knows about a model that was loaded from `folder`."""
    curves = Path(folder).parent / CURVES
    return Description(
        method=model.about["params"]["method"],
        summary=summary(model),
        class_names=model.class_names,
        settings=tuple(settings(model)),
        seed=model.about["params"]["seed"],
        codes=model.tokenizer.codes,
        tables=tuple(codes.tables(model)),
        supports_inpainting=model.method.supports_inpainting,
        curves=str(curves) if curves.is_file() else None,
    )


def summary(model: Generator) -> str:
    """A line about a model: method, size, classes, tokens."""
    millions = sum(parameter.numel() for parameter in model.method.parameters()) / 1e6
    rows, columns = model.grid
    parts = [f"method {model.about['params']['method']}", f"{millions:.2f}M parameters"]
    parts += [
        f"{len(model.class_names) or 'no'} classes",
        f"{rows} x {columns} tokens of {model.tokenizer.codes:,} codes",
    ]
    return " · ".join(parts)
