"""torch-fidelity: how it is imported, and our own networks in its registry."""

import importlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqlcmd import efficientnet
from vqlcmd.evaluation.proxy_classifier import load_proxy

PROXY = "vqlcmd-proxy"
"""The proxy classifier's name in torch-fidelity's registry."""
EFFICIENTNET = "efficientnet-lite0"
"""EfficientNet-Lite0's name there."""

_declared: list[torch.library.Library] = []


def guard_torchvision() -> None:
    """Makes `import torchvision` work beside a CPU build of torch; where it works already, nothing is changed.

    The default torchvision wheel links against CUDA, so beside a CPU torch its operators are missing and the import
    fails on them, although transforms and models need none. Declaring the two it asks for is enough;
    torchvision.ops and torchvision.io stay unusable.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        # The declarations live as long as the library object.
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        importlib.import_module("torchvision")


@cache
def register_proxy() -> str:
    """Registers the proxy classifier with torch-fidelity, once per process, and returns its name there.

    `torch_fidelity.calculate_metrics(feature_extractor=register_proxy(), feature_extractor_weights_path=...)` then
    gives the numbers of this project; its inception score means nothing for a proxy classifier without classes.
    """
    _register(PROXY, load_proxy)
    return PROXY


@cache
def register_efficientnet() -> str:
    """Registers EfficientNet-Lite0 in the same way, with the weights of its package where no file is named."""
    _register(EFFICIENTNET, efficientnet.EfficientNetLite0, efficientnet.weights_file)
    return EFFICIENTNET


def _register(registered: str, load: Callable[[Path], nn.Module], weights: Callable[[], Path] | None = None) -> None:
    """`load` makes of a file a network of features and logits; `weights` finds the file where none is named."""
    guard_torchvision()
    import torch_fidelity

    class Registered(torch_fidelity.FeatureExtractorBase):
        def __init__(
            self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None, **_: Any
        ) -> None:
            super().__init__(name, features_list)
            given = feature_extractor_weights_path
            if given is None:
                assert weights is not None, registered
                given = weights()
            self.network = load(Path(given))
            self.labelled = getattr(self.network, "labelled", True)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, input: Tensor) -> tuple[Tensor, ...]:  # noqa: A002
            features, logits = self.network(input)
            layers = {"features": features, "logits": logits}
            # torch-fidelity zips the answer with features_list, whose order depends on PYTHONHASHSEED.
            return tuple(layers[layer] for layer in self.features_list)

    torch_fidelity.register_feature_extractor(registered, Registered)
