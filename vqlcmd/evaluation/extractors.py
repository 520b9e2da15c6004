"""Feature extractors: the networks of torch-fidelity and the proxy classifier, behind one call.

Shapes: B images of a batch, S side, D features, C classes.
"""

import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqlcmd.evaluation.proxy_classifier import load_proxy
from vqlcmd.params import Evaluate
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.torchvision_guard import guard_torchvision
from vqlcmd.tokenizer.pixels import full_precision

PROXY = "vqlcmd-proxy"
"""The proxy classifier's name in torch-fidelity's registry."""


@dataclass(frozen=True)
class _Network:
    """A network in torch-fidelity: its name there, the layers we read, and where its weights come from."""

    registered: str
    features: str
    logits: str | None
    url: str | None


_NETWORKS = {
    "proxy": _Network(PROXY, "features", "logits", None),
    "inception": _Network(
        "inception-v3-compat",
        "2048",
        "logits_unbiased",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    ),
    "vgg16": _Network("vgg16", "fc2_relu", None, "https://download.pytorch.org/models/vgg16-397923af.pth"),
}


class Layers(NamedTuple):
    """What metrics read of a network, float32 on the CPU: `features` (B, D) and raw `logits` (B, C) or None."""

    features: Tensor
    logits: Tensor | None


@dataclass(frozen=True)
class Extractor:
    """Maps uint8 images (B, 3, S, S) to their `Layers`.

    `name` is proxy, inception or vgg16; `digest` is the SHA-256 of the weights file.
    """

    name: str
    digest: str
    network: Any
    device: torch.device
    has_logits: bool

    def __call__(self, images: Tensor) -> Layers:
        assert images.dtype == torch.uint8, images.dtype
        assert images.dim() == 4, images.shape
        assert images.shape[1] == 3, images.shape
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.no_grad(), exact, full_precision():
            layers = self.network.convert_features_tuple_to_dict(self.network(images.to(self.device)))
        source = _NETWORKS[self.name]
        return Layers(layers[source.features].cpu(), layers[source.logits].cpu() if self.has_logits else None)

    def collect(self, batches: Iterable[Tensor]) -> Layers:
        """The same for all batches of a set, joined along the first axis. Raises DataError if there is no batch."""
        parts = [self(batch) for batch in batches]
        if not parts:
            raise DataError("there is no image to take features of")
        logits = [part.logits for part in parts if part.logits is not None]
        return Layers(torch.cat([part.features for part in parts]), torch.cat(logits) if logits else None)


def extractor(name: str, weights: Path | None = None, device: torch.device | str = "cpu") -> Extractor:
    """The network `name` (proxy, inception or vgg16) with weights from a file, or from torch-fidelity's own download.

    The proxy classifier always needs its file, and gives logits only if it was trained on classes. Raises ConfigError
    for an unknown name, and DataError for weights that are missing, damaged, or cannot be downloaded.
    """
    if name not in _NETWORKS:
        raise ConfigError(f"features: {name!r} is not one of {', '.join(_NETWORKS)}")
    network = _NETWORKS[name]
    registered = register_proxy()
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    if weights is not None and not weights.is_file():
        raise DataError(f"{weights}: no such file; it should hold the weights of {network.registered}")
    if weights is None and network.url is None:
        raise DataError(f"{registered} needs the weights file that the reference stage writes")
    weights = weights or _download(network)
    if network.registered != PROXY:
        _check_holds_tensors_only(weights)
    build = FEATURE_EXTRACTORS_REGISTRY[network.registered]
    layers = [layer for layer in (network.features, network.logits) if layer is not None]
    try:
        module = build(network.registered, layers, feature_extractor_weights_path=str(weights), verbose=False)
    except RuntimeError as error:
        raise DataError(f"{weights}: not the weights of {network.registered}") from error
    module = module.requires_grad_(False).eval().to(device)
    has_logits = network.logits is not None and getattr(module, "labelled", True)
    return Extractor(name, sha256(weights), module, torch.device(device), has_logits)


def extractors(
    settings: Evaluate, weights: Callable[[str], Path | None], device: torch.device | str
) -> tuple[Extractor, Extractor]:
    """That of the Fréchet distance and the Inception Score, and that of precision and recall: one where they agree.

    `weights` gives the file for a name, or None; errors as in `extractor`.
    """
    first = extractor(settings.features, weights(settings.features), device)
    if settings.precision_features == settings.features:
        return first, first
    return first, extractor(settings.precision_features, weights(settings.precision_features), device)


@cache
def register_proxy() -> str:
    """Registers the proxy classifier with torch-fidelity, once per process, and returns its name there.

    `torch_fidelity.calculate_metrics(feature_extractor=register_proxy(), feature_extractor_weights_path=...)` then
    gives the numbers of this project; its inception score means nothing for a proxy classifier without classes.
    """
    guard_torchvision()
    import torch_fidelity

    class ProxyExtractor(torch_fidelity.FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], feature_extractor_weights_path: str, **_: Any) -> None:
            super().__init__(name, features_list)
            self.proxy = load_proxy(Path(feature_extractor_weights_path))
            self.labelled = self.proxy.labelled

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
            features, logits = self.proxy(input)
            layers = {"features": features, "logits": logits}
            # torch-fidelity zips the answer with features_list, whose order depends on PYTHONHASHSEED.
            return tuple(layers[layer] for layer in self.features_list)

    torch_fidelity.register_feature_extractor(PROXY, ProxyExtractor)
    return PROXY


def _download(network: _Network) -> Path:
    """Where torch-fidelity keeps the file, after a download if it is not there. Its name ends in its digest's start."""
    assert network.url is not None
    place = Path(torch.hub.get_dir()) / "checkpoints" / network.url.rpartition("/")[2]
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(network.url, str(place), place.stem.rpartition("-")[2], progress=False)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"cannot download the weights of {network.registered} ({error}); fetch {network.url} on another "
                f"machine and put it at {place} ($TORCH_HOME/hub/checkpoints/{place.name})"
            ) from error
    return place


def _check_holds_tensors_only(weights: Path) -> None:
    """torch-fidelity unpickles whatever the file says; a file that is more than tensors is refused before that."""
    try:
        torch.load(weights, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise DataError(f"{weights}: not a file of weights (nothing but tensors, as torch.save writes them)") from error
