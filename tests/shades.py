"""A tokenizer of somebody else's: grey levels of patches that are higher than wide, without a codebook."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vqlcmd.precision import FLOAT32
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.safetensors_file import load_weights, save_weights

KIND, ENTRY = "shades", "tests.shades:load"
HIGH, WIDE = 8, 4


class Shades:
    """Token k stands for a patch of 8 x 4 pixels in the k-th of some greys."""

    codebook = None

    def __init__(self, greys_K: Tensor):
        self.greys_K, self.codes = greys_K, len(greys_K)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        if height % HIGH or width % WIDE:
            raise ConfigError(f"{height} x {width} pixels are no whole patches of {HIGH} x {WIDE}")
        return height // HIGH, width // WIDE

    def encode(self, images_BCHW: Tensor, /, *, precision: str = FLOAT32) -> Tensor:
        means_BN = F.avg_pool2d(images_BCHW, (HIGH, WIDE)).mean(dim=1).flatten(1)
        return (means_BN[..., None] - self.greys_K).abs().argmin(dim=2)

    def decode(self, tokens_BN: Tensor, grid: tuple[int, int], /, *, precision: str = FLOAT32) -> Tensor:
        greys_BHW = self.greys_K[tokens_BN].view(-1, *grid)
        pixels_BHW = greys_BHW.repeat_interleave(HIGH, 1).repeat_interleave(WIDE, 2)
        return pixels_BHW[:, None].expand(-1, 3, -1, -1)


def save(path: Path, codes: int = 8) -> None:
    save_weights(path, KIND, {"greys": torch.linspace(-1, 1, codes)}, {})


def load(path: Path, device: str | torch.device) -> Shades:
    tensors, _ = load_weights(path, KIND, device)
    return Shades(tensors["greys"])
