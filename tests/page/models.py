"""Small models in folders, as the page gets them."""

import dataclasses
from pathlib import Path
from typing import Any

import vqlcmd
from tests.factory import build, codebook, params, perturb
from tests.tokenizers import SMALL, seeded
from vqlcmd import methods
from vqlcmd.generator import Generator
from vqlcmd.runtime.files import sha256
from vqlcmd.tokenizer import vqgan

ARCHITECTURE = dataclasses.replace(SMALL, ch_mult=(1, 2, 2), attn_resolutions=())
"""16 x 16 pixels as 4 x 4 tokens of 32 codes."""
SIDE, TOKENS, CODES = 16, 16, 32
NAMES = ("ant", "bee", "cat")


def saved(folder: Path, *, names: tuple[str, ...] = NAMES, **overrides: Any) -> Generator:
    """A model away from its initial weights in a folder of its own, loaded as users do."""
    chosen = params(images={"size": SIDE}, **{"sample_steps": 10, **overrides})
    method = perturb(build(tokens=TOKENS, codes=CODES, classes=len(names), **overrides))
    vqgan.save(seeded(ARCHITECTURE), folder / "vqgan.safetensors", {})
    header = {
        "tokens": TOKENS,
        "grid": [4, 4],
        "classes": list(names),
        "images": chosen.images.model_dump(mode="json"),
        "vqgan_digest": sha256(folder / "vqgan.safetensors"),
    }
    methods.save_method(folder / "model" / "model.safetensors", method, chosen, header, codebook(CODES))
    return vqlcmd.load(str(folder))
