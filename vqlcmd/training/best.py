"""The moving average at the row of the curves with the lowest held-out loss so far."""

import copy
import math
from typing import Any

import torch
from torch import Tensor

from vqlcmd.diffusion.method import Method


class Best:
    """Its weights, on the CPU, with the step and the loss. They are saved and resumed like the rest of a run.

    In the state and not in a file of its own: a run that goes on from an earlier step must not keep what a later row of
    the lost steps had.
    """

    def __init__(self) -> None:
        self.step, self.loss = 0, math.inf
        self._weights: dict[str, Tensor] = {}

    def consider(self, average: Method, row: dict[str, float]) -> None:
        """Take `average` where `row` has a lower held-out loss than all before; never where it has none (NaN)."""
        if row["heldout_loss"] < self.loss:
            self.step, self.loss = int(row["step"]), row["heldout_loss"]
            self._weights = {
                name: torch.empty_like(tensor, device="cpu").copy_(tensor)
                for name, tensor in average.state_dict().items()
            }

    def method(self, average: Method) -> Method | None:
        """A method like `average`, with the best weights; None where no row had a held-out loss."""
        if not self._weights:
            return None
        best = copy.deepcopy(average)
        best.load_state_dict(self._weights)
        return best

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "loss": self.loss, "weights": self._weights}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.step, self.loss, self._weights = saved["step"], saved["loss"], saved["weights"]
