"""Rows of metrics/tokenizer.tsv: means of every loss term over steps, usage of the codes, and other values of a step.

Shapes: N tokens, K codes.
"""

import math
from typing import Any

import torch
from torch import Tensor

from vqlcmd.runtime.errors import Diverged
from vqlcmd.tokenizer_fit.quality import usage


class Curves:
    """The rows so far, and the terms and codes of all processes since the last row; the same in every process."""

    def __init__(self, codes: int) -> None:
        self.rows: list[dict[str, float]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._uses_K = torch.zeros(codes, dtype=torch.int64)

    def add(self, step: int, terms: dict[str, float], codes_R: Tensor | None) -> None:
        """Add one step's terms, and its codes if any. Diverged, naming step and terms, where one is not finite."""
        broken = [name for name, value in terms.items() if not math.isfinite(value)]
        if broken:
            raise Diverged(
                f"{', '.join(broken)} is not finite at step {step}; a lower vqgan.fit.learning_rate may help"
            )
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1
        if codes_R is not None:
            self._uses_K += torch.bincount(codes_R, minlength=len(self._uses_K)).cpu()

    def close_row(self, done: int, extra: dict[str, float]) -> None:
        """Append the row of step `done` with the values `extra`, and start the next one."""
        row = {"step": done} | {name: value / self._counts[name] for name, value in self._sums.items()}
        self.rows.append(row | (usage(self._uses_K) if self._uses_K.any() else {}) | extra)
        self._sums, self._counts = {}, {}
        self._uses_K.zero_()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "sums": self._sums, "counts": self._counts, "uses": self._uses_K}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.rows, self._sums, self._counts = saved["rows"], saved["sums"], saved["counts"]
        self._uses_K.copy_(saved["uses"])
