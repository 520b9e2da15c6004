"""Pictures of a training while it runs: what its samples look like so far. Nothing of them is a result.

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
VIEWERS = {"images": "vqlcmd.reports.grid:draw"}
"""`domain` in params.yaml to `module:function`, which draws (tokens (n, N), labels (n,) or None, header) as a PNG."""

Draw = Callable[[Tensor, Tensor | None, Mapping[str, Any], Path], None]


class Pictures:
    """metrics/live.png, replaced at every picture; all of them in `album`; and in the log."""

    def __init__(self, domain: str, header: Mapping[str, Any], album: Path, log: Log):
        self._domain, self._header, self._album, self._log = domain, header, album, log

    def add(self, step: int, tokens_BN: Tensor, labels: Tensor | None) -> None:
        """Samples of the average at a step; a line where they cannot be drawn."""
        path = self._album / f"{step:07}.png"
        try:
            module, _, name = VIEWERS[self._domain].partition(":")
            draw: Draw = getattr(importlib.import_module(module), name)
            draw(tokens_BN.cpu(), labels, self._header, path)
            with atomic_write(PICTURE) as side:
                side.write_bytes(path.read_bytes())
            self._log.picture("samples", step, path)
        # Whatever it is: weeks of training are worth more than a picture of them.
        except Exception as error:
            reason = f"no viewer for {self._domain}" if isinstance(error, KeyError) else shown(error)
            print(f"train: no picture of step {step}: {reason}", file=sys.stderr, flush=True)


def columns(classes: int) -> int:
    """Of a grid of samples, image i having class i mod `classes`."""
    return classes if 1 < classes <= 20 else 16
