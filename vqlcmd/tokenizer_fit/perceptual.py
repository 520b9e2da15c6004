"""Perceptual distances: distances between images in the features of a network pretrained on photographs.

Shapes: B images, C channels, S pixels a side, H and W of a layer.
"""

import importlib
import urllib.error
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqlcmd.efficientnet import EfficientNetLite0, weights_file
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.torchvision_guard import guard_torchvision

LAYERS = (0, 2, 4, 10)
"""Blocks of EfficientNet-Lite0 after which features are compared: the last ones at 1/2, 1/4, 1/8 and 1/16 of a side."""
SMALLEST_SIDE = 64
"""Smaller images are enlarged to this side: features at 1/16 of 32 pixels have almost no spatial resolution."""


def feature_distance(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """Squared distance between the normalised vectors at each position, averaged over positions: (B,), 0 to 4."""
    difference = F.normalize(a_BCHW, dim=1, eps=1e-6) - F.normalize(b_BCHW, dim=1, eps=1e-6)
    return difference.square().sum(dim=1).mean(dim=(1, 2))


class EfficientNetDistance(nn.Module):
    """`feature_distance` between images (B, 3, S, S) in [-1, 1], averaged over layers: (B,). Differentiable."""

    def __init__(self) -> None:
        super().__init__()
        network: Any = EfficientNetLite0(weights_file()).network
        self.stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
        self.blocks = nn.Sequential(*network._blocks[: LAYERS[-1] + 1])
        self.eval().requires_grad_(False)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(self._features(x), self._features(y), strict=True)
        return torch.stack([feature_distance(*pair) for pair in pairs]).mean(dim=0)

    def _features(self, x: Tensor) -> list[Tensor]:
        if x.shape[-1] < SMALLEST_SIDE:
            x = F.interpolate(x, size=(SMALLEST_SIDE, SMALLEST_SIDE), mode="bilinear", align_corners=False)
        x = self.stem(((x + 1) * 127.5 - 127) / 128)
        found = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in LAYERS:
                found.append(x.float())
        return found


class LPIPS(nn.Module):
    """LPIPS (Zhang et al. 2018) between images (B, 3, S, S) in [-1, 1]: (B,). Differentiable.

    Its linear weights are in the package `lpips`; those of VGG16 are from torchvision, which downloads them once.
    """

    def __init__(self) -> None:
        super().__init__()
        guard_torchvision()
        try:
            lpips = importlib.import_module("lpips")
        except ModuleNotFoundError:
            raise ConfigError(
                "vqgan.fit.perceptual_network is lpips, which is not installed: pip install 'vqlcmd[lpips]'"
            ) from None
        with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]):
            self.network: Any = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
        self.network.net.load_state_dict(trunk_weights(list(self.network.net.state_dict())))
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.network(x, y).flatten()


def trunk_weights(names: list[str]) -> dict[str, Tensor]:
    """torchvision's weights of VGG16, under the names `sliceN.LAYER.weight` that lpips uses.

    ConfigError where they cannot be downloaded.
    """
    from torchvision.models import VGG16_Weights

    try:
        weights = VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise ConfigError(
            f"vqgan.fit.perceptual_network is lpips, and torchvision's weights of VGG16 cannot be had ({error}): "
            "let it download them once where there is a network, or choose efficientnet"
        ) from None
    return {name: weights["features." + name.partition(".")[2]] for name in names}


NETWORKS: dict[str, Callable[[], nn.Module | None]] = {
    "none": lambda: None,
    "efficientnet": EfficientNetDistance,
    "lpips": LPIPS,
}
"""Valid values of `vqgan.fit.perceptual_network`: each makes a module, (images, images) -> (B,), or None."""
