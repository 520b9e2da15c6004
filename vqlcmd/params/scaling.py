"""The number and size of pictures -> values of params.yaml for them, and the file itself, with its comments."""

import math
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from vqlcmd.runtime.files import atomic_write

SHAPES = {16: [1, 2], 32: [1, 1, 2], 64: [1, 1, 2, 2], 128: [1, 1, 2, 2]}
"""{side in pixels: vqgan.ch_mult}: 8 x 8 tokens, at 128 pixels 16 x 16."""
CODES = {0: 128, 300: 256, 5_000: 1024, 50_000: 2048}
"""{least number of pictures: vqgan.n_embed}."""
MODELS = {0: (4, 128, 32, 2e-3), 5_000: (6, 192, 64, 1e-3), 20_000: (8, 256, 64, 1e-3), 200_000: (12, 512, 64, 1e-3)}
"""{least number of pictures: layers and width of the transformer, batch size and learning rate}."""
GUIDANCE = 1.0
"""Where there are classes: on a thousand pictures it halved the FID, docs/log.md."""
SAMPLES = {0: 500, 5_000: 2_000, 50_000: 10_000}
TOKENIZER_PASSES, TOKENIZER_MOST = 2, 100_000
MODEL_PASSES, MODEL_MOST = {0: 5, 5_000: 40}, 400_000
"""At least the preset's steps, more for so many passes over the pictures, and at most these steps."""
KEPT_PIXELS = 50_000 * 64**2
"""Pixels of the pictures that a stage which trains on them keeps in memory: 0.6 GB."""


def size_for(side: float) -> int:
    """The side in pixels to begin with, for pictures whose shorter sides have a median of `side` pixels: 32, or 16."""
    return 32 if side >= 32 else 16


def values(preset: Mapping[str, Any], count: int, size: int, classes: int = 0) -> dict[str, Any]:
    """Dotted keys of params.yaml for `count` pictures of `size` pixels a side, one of SHAPES, to lay over `preset`.

    Rules of thumb. Those for 300 to 4,999 pictures of 32 pixels without classes are the values of
    presets/pictures.yaml.
    """
    fit = preset["vqgan"]["fit"]
    layers, width, batch, learning_rate = _step(MODELS, count)
    passes = _step(MODEL_PASSES, count)
    kept = KEPT_PIXELS // max(size, 64) ** 2
    return {
        "images.size": size,
        "vqgan.ch_mult": SHAPES[size],
        "vqgan.n_embed": _step(CODES, count),
        "vqgan.fit.steps": _steps(fit["steps"], TOKENIZER_PASSES * count / fit["batch_size"], TOKENIZER_MOST),
        "vqgan.fit.limit": kept,
        "reference.proxy.limit": kept,
        "train_steps": _steps(preset["train_steps"], passes * count / batch, MODEL_MOST),
        "network.layers": layers,
        "network.width": width,
        "train.batch_size": batch,
        "train.learning_rate": learning_rate,
        "sample.count": _step(SAMPLES, count),
        "guidance": GUIDANCE if classes > 1 else preset["guidance"],
    }


def write(preset: Path, chosen: dict[str, Any], target: Path) -> dict[str, Any]:
    """Writes `preset`, with its comments and the dotted keys `chosen` set, to `target`; returns what changed.

    Raises KeyError for a key that the preset lacks.
    """
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 10_000
    document = yaml.load(preset)
    changed = {}
    for dotted, value in chosen.items():
        *sections, key = dotted.split(".")
        section = document
        for each in sections:
            section = section[each]
        if section[key] == value:
            continue
        if isinstance(value, list):
            section[key][:] = value
        else:
            section[key] = value
        changed[dotted] = value
    with atomic_write(target) as side:
        yaml.dump(document, side)
    return changed


def _step(levels: dict[int, Any], count: int) -> Any:
    return list(levels.values())[bisect_right(list(levels), count) - 1]


def _steps(least: int, wanted: float, most: int) -> int:
    """`wanted` in whole hundreds, within the limits."""
    return min(max(math.ceil(wanted / 100) * 100, least), most)
