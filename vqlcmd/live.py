"""Figures of a training while it runs: its samples and embeddings so far. They are not results.

Training only knows tokens. The functions that draw them belong to the domain and are imported by name when a figure is
due, so that no stage depends on the drawing code. A figure that fails does not end the training.
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
"""Maps `domain` in params.yaml to the `module:function` that draws samples as a PNG.

It is called with (tokens (n, N), labels (n,) or None, header of the tokens, path).
"""
TOKENIZERS = {"images": "vqlcmd.reports.grid:reconstructions"}
"""Maps `domain` to the `module:function` that draws the tokenizer's reconstructions: (header of the tokens, path).

They do not change during training and are drawn once. Text needs none, since its tokens give it back exactly.
"""
EMBEDDINGS = "vqlcmd.figures:embeddings"
"""The function that draws norms and distances of the tokenizer's codebook and of the model's table."""


class Pictures:
    """Draws the latest samples as metrics/live.png, and all figures into the folder `album` and the log."""

    def __init__(self, domain: str, header: Mapping[str, Any], codebook_KD: Tensor, album: Path, log: Log):
        self._domain, self._header, self._codebook_KD, self._album, self._log = domain, header, codebook_KD, album, log
        self._tokenizer_is_shown = False

    def add(self, step: int, tokens_BN: Tensor, labels: Tensor | None, table_KD: Tensor) -> None:
        """Draw samples of the moving average at a step, and its table; prints a line for each figure that fails."""

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
        # Any exception: weeks of training are worth more than a figure.
        except Exception as error:
            reason = f"no viewer for {self._domain}" if isinstance(error, KeyError) else shown(error)
            print(f"train: no picture of {name} at step {step}: {reason}", file=sys.stderr, flush=True)


def _function(place: str) -> Callable[..., None]:
    """The function at `module:name`."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def columns(classes: int) -> int:
    """Number of columns in a grid of samples, in which image i has class i mod `classes`."""
    return classes if 1 < classes <= 20 else 16
