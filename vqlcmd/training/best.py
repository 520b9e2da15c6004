"""Keeps the moving average that had the lowest held-out loss so far."""

import copy
import math
from typing import Any

import torch
from torch import Tensor

from vqlcmd.diffusion.method import Method


class Best:
    """The best weights so far, on the CPU, with their step and held-out loss; saved and resumed with the run's state.

    They are not in a file of their own, since a run resumed from an earlier step must not keep weights of the steps
    that were lost.
    """

    def __init__(self) -> None:
        self.step, self.loss = 0, math.inf
        self._weights: dict[str, Tensor] = {}

    def consider(self, average: Method, row: dict[str, float]) -> None:
        """Copy the weights of `average` if the held-out loss in `row` is lower than all before; never if it is NaN."""
        if row["heldout_loss"] < self.loss:
            self.step, self.loss = int(row["step"]), row["heldout_loss"]
            self._weights = {
                name: torch.empty_like(tensor, device="cpu").copy_(tensor)
                for name, tensor in average.state_dict().items()
            }

    def method(self, average: Method) -> Method | None:
        """A copy of `average` with the best weights; None if no row had a held-out loss."""
        if not self._weights:
            return None
        best = copy.deepcopy(average)
        best.load_state_dict(self._weights)
        return best

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "loss": self.loss, "weights": self._weights}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.step, self.loss, self._weights = saved["step"], saved["loss"], saved["weights"]
