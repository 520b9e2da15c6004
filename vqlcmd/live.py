"""Pictures of a training while it runs: its samples and embeddings so far. Nothing of them is a result.

A training knows tokens. What they stand for is known to their domain, which is asked by name and when a picture is
due, so that no stage depends on what draws it; and a picture that fails ends no training.
"""

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vqlcmd.loggers import Log
from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import shown
from vqlcmd.runtime.files import atomic_write

PICTURE = paths.METRICS / "live.png"
VIEWERS = {"images": "vqlcmd.reports.grid:draw", "text": "vqlcmd.reports.lines:draw"}
"""`domain` in params.yaml to `module:function`, which draws (tokens (n, N), labels (n,) or None, header) as a PNG."""
TOKENIZERS = {"images": "vqlcmd.reports.grid:reconstructions"}
"""The same to what draws, by the header of the tokens, what its tokenizer makes of data: that stays, and is drawn once.
Text comes back from its tokens as it was."""
EMBEDDINGS = "vqlcmd.figures:embeddings"
"""Draws norms and distances of the tokenizer's codebook and of the model's table."""


class Pictures:
    """metrics/live.png, the samples, replaced at every picture; all pictures in `album`; and in the log."""

    def __init__(self, domain: str, header: Mapping[str, Any], codebook_KD: Tensor, album: Path, log: Log):
        self._domain, self._header, self._codebook_KD, self._album, self._log = domain, header, codebook_KD, album, log
        self._tokenizer_is_shown = False

    def add(self, step: int, tokens_BN: Tensor, labels: Tensor | None, table_KD: Tensor) -> None:
        """Samples of the average at a step, and its table; a line for each that cannot be drawn."""

        def samples(path: Path) -> None:
            _function(VIEWERS[self._domain])(tokens_BN.cpu(), labels, self._header, path)
            with atomic_write(PICTURE) as side:
                side.write_bytes(path.read_bytes())

        self._draw("samples", step, self._album / f"{step:07}.png", samples)
        embeddings = self._album / f"embeddings-{step:07}.png"
        self._draw(
            "embeddings",
            step,
            embeddings,
            lambda path: _function(EMBEDDINGS)(self._codebook_KD.cpu(), table_KD.detach().cpu(), path),
        )
        if self._domain in TOKENIZERS and not self._tokenizer_is_shown:
            self._tokenizer_is_shown = True
            drawn = self._album / "reconstructions.png"
            self._draw(
                "reconstructions", step, drawn, lambda path: _function(TOKENIZERS[self._domain])(self._header, path)
            )

    def _draw(self, name: str, step: int, path: Path, draw: Callable[[Path], None]) -> None:
        try:
            draw(path)
            self._log.picture(name, step, path)
        # Whatever it is: weeks of training are worth more than a picture of them.
        except Exception as error:
            reason = f"no viewer for {self._domain}" if isinstance(error, KeyError) else shown(error)
            print(f"train: no picture of {name} at step {step}: {reason}", file=sys.stderr, flush=True)


def _function(place: str) -> Callable[..., None]:
    """That of `module:name`."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def columns(classes: int) -> int:
    """Of a grid of samples, image i having class i mod `classes`."""
    return classes if 1 < classes <= 20 else 16
