"""A fit of a tiny VQGAN to squares, as short as can be."""

from pathlib import Path
from typing import Any

from tests.tokenizers import QUICK, TINY, blobs
from vqlcmd.params.vqgan import VqganFit
from vqlcmd.runtime.resume import State
from vqlcmd.tokenizer.vqgan import VQGAN, Architecture
from vqlcmd.tokenizer_fit.fit import build, fit
from vqlcmd.tokenizer_fit.pictures import InMemory

FULL: dict[str, Any] = {
    "l1": 0.5,
    "adversarial": 0.5,
    "discriminator": QUICK.discriminator.model_copy(
        update={"start": 0.2, "warmup": 0.2, "channels": 8, "layers": 1, "learning_rate": 1e-3}
    ),
    "codebook": 1.0,
    "ema": 0.9,
    "flip": True,
}
"""All terms that need no package, on top of QUICK."""


def fitted(
    folder: Path,
    changes: dict[str, Any] | None = None,
    *,
    architecture: Architecture = TINY,
    images: int = 64,
    seed: int = 0,
    begun: VQGAN | None = None,
    **how: Any,
) -> tuple[VQGAN, list[dict[str, float]]]:
    """What `fit` gives, with its state in `folder`."""
    settings = VqganFit.model_validate(QUICK.model_copy(update=changes or {}).model_dump())
    vqgan = begun or build(architecture, seed)
    with State(folder) as state:
        return fit(
            vqgan,
            InMemory(blobs(images)),
            blobs(images)[:8],
            settings,
            seed=seed,
            state=state,
            has_codes=begun is not None,
            **how,
        )
