"""The model that a fit keeps: a moving average of the VQGAN's weights, or the VQGAN itself."""

import copy
from typing import Any

import torch

from vqlcmd.tokenizer.vqgan import VQGAN


class Average:
    """`kept` <- d kept + (1 - d) vqgan after every step, d growing from 0.1 to `decay`; with 0 it is the VQGAN itself.

    The average is a second module: the weights in training are never swapped.
    """

    def __init__(self, vqgan: VQGAN, decay: float) -> None:
        self._vqgan, self._decay = vqgan, decay
        self.kept = copy.deepcopy(vqgan).requires_grad_(False) if decay else vqgan

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average after training step `step`."""
        if self._decay:
            weight = 1 - min(self._decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(list(self.kept.parameters()), list(self._vqgan.parameters()), weight)
            self.kept.codebook.copy_(self.kept.unit(self.kept.codebook))

    @torch.no_grad()
    def take_codes(self) -> None:
        """Copy the VQGAN's codebook, so that its values from before k-means are not part of the average."""
        self.kept.codebook.copy_(self._vqgan.codebook)

    @torch.no_grad()
    def settle(self) -> None:
        """Copy the average's encoder and codes to the VQGAN, so that the decoder learns the tokens that are kept."""
        for name in ("encoder", "quant_conv", "quantize"):
            here, there = self._vqgan.get_submodule(name), self.kept.get_submodule(name)
            for mine, kept in zip(here.parameters(), there.parameters(), strict=True):
                mine.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        return self.kept.state_dict()

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.kept.load_state_dict(saved)
