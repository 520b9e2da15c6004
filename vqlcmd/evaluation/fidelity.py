"""Imports torch-fidelity and registers this project's networks with it."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vqlcmd import efficientnet
from vqlcmd.evaluation.proxy_classifier import load_proxy
from vqlcmd.torchvision_guard import guard_torchvision

PROXY = "vqlcmd-proxy"
"""The proxy classifier's name in torch-fidelity's registry."""
EFFICIENTNET = "efficientnet-lite0"
"""EfficientNet-Lite0's name there."""


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
    """Registers a network that returns (features, logits); `load` builds it from a file, by default `weights()`."""
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
            # torch-fidelity zips the output with features_list, whose order depends on PYTHONHASHSEED.
            return tuple(layers[layer] for layer in self.features_list)

    torch_fidelity.register_feature_extractor(registered, Registered)
