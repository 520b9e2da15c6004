"""The number and size of pictures -> values of params.yaml for them, and the file itself, with its comments."""

from bisect import bisect_right
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from vqlcmd.runtime.files import atomic_write

SHAPES = {16: [1, 2], 32: [1, 2, 2], 64: [1, 1, 2, 2], 128: [1, 1, 2, 2]}
"""{side in pixels: vqgan.ch_mult}: 8 x 8 tokens, at 128 pixels 16 x 16."""
CODES = {0: 128, 300: 512, 5_000: 1024, 50_000: 2048}
"""{least number of pictures: vqgan.n_embed}."""
NETWORKS = {0: (6, 192), 20_000: (8, 256), 200_000: (12, 512)}
"""{least number of pictures: layers and width of the transformer}."""
SAMPLES = {0: 500, 5_000: 2_000, 50_000: 10_000}
TOKENIZER_STEPS, TOKENIZER_PASSES, TOKENIZER_BATCH, TOKENIZER_MOST = 3_000, 2, 16, 100_000
MODEL_STEPS, MODEL_PASSES, MODEL_BATCH, MODEL_MOST = 4_000, 10, 64, 400_000
"""Least number of steps, passes over the pictures, batch size, greatest number of steps.

Steps make the passes, within these limits.
"""
KEPT_PIXELS = 50_000 * 64**2
"""Pixels of the pictures that a stage which trains on them keeps in memory: 0.6 GB."""


def size_for(side: float) -> int:
    """The side in pixels to begin with, for pictures whose shorter sides have a median of `side` pixels: 32, or 16."""
    return 32 if side >= 32 else 16


def values(count: int, size: int) -> dict[str, Any]:
    """{dotted key of params.yaml: value} for `count` pictures of `size` x `size` pixels, `size` being one of SHAPES.

    Rules of thumb. The values for 300 to 4,999 pictures of 32 pixels are those of presets/pictures.yaml.
    """
    layers, width = _step(NETWORKS, count)
    kept = KEPT_PIXELS // max(size, 64) ** 2
    return {
        "images.size": size,
        "vqgan.ch_mult": SHAPES[size],
        "vqgan.n_embed": _step(CODES, count),
        "vqgan.fit.steps": _steps(count, TOKENIZER_STEPS, TOKENIZER_PASSES, TOKENIZER_BATCH, TOKENIZER_MOST),
        "vqgan.fit.limit": kept,
        "reference.proxy.limit": kept,
        "train_steps": _steps(count, MODEL_STEPS, MODEL_PASSES, MODEL_BATCH, MODEL_MOST),
        "network.layers": layers,
        "network.width": width,
        "sample.count": _step(SAMPLES, count),
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


def _steps(count: int, least: int, passes: int, batch: int, most: int) -> int:
    wanted = -(-passes * count // batch // 100) * 100
    return min(max(wanted, least), most)
