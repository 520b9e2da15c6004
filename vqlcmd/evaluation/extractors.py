"""Feature extractors: the networks of torch-fidelity, EfficientNet and the proxy classifier, behind one call.

Shapes: B images of a batch, S side, D features, C classes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqlcmd.evaluation.fidelity import register_efficientnet, register_proxy
from vqlcmd.evaluation.networks import NETWORKS, weights_of
from vqlcmd.params import Evaluate
from vqlcmd.precision import FLOAT32, computing, deterministic
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256


class Layers(NamedTuple):
    """The outputs of a network that metrics use, float32 on the CPU: `features` (B, D), raw `logits` (B, C) or None."""

    features: Tensor
    logits: Tensor | None


@dataclass(frozen=True)
class Extractor:
    """Maps uint8 images (B, 3, S, S) to their `Layers`.

    `name` is one of `networks.NETWORKS`; `digest` is the SHA-256 of the weights file; `precision` is that of the
    network's matrix products and convolutions.
    """

    name: str
    digest: str
    network: Any
    device: torch.device
    has_logits: bool
    precision: str

    def __call__(self, images: Tensor) -> Layers:
        assert images.dtype == torch.uint8, images.dtype
        assert images.dim() == 4, images.shape
        assert images.shape[1] == 3, images.shape
        with torch.no_grad(), deterministic(), computing(self.precision, self.device):
            layers = self.network.convert_features_tuple_to_dict(self.network(images.to(self.device)))
        source = NETWORKS[self.name]
        logits = layers[source.logits].float().cpu() if self.has_logits else None
        return Layers(layers[source.features].float().cpu(), logits)

    def collect(self, batches: Iterable[Tensor]) -> Layers:
        """`Layers` of all batches of a set, concatenated. Raises DataError if there is no batch."""
        parts = [self(batch) for batch in batches]
        if not parts:
            raise DataError("there is no image to take features of")
        logits = [part.logits for part in parts if part.logits is not None]
        return Layers(torch.cat([part.features for part in parts]), torch.cat(logits) if logits else None)


def extractor(
    name: str, weights: Path | None = None, device: torch.device | str = "cpu", precision: str = FLOAT32
) -> Extractor:
    """The network `name` of `networks.NETWORKS` with weights from a file, a package or torch-fidelity's download.

    The proxy classifier always needs its file, and gives logits only if it was trained on classes. Raises ConfigError
    for an unknown name or a package that is not installed, and DataError for weights that are missing, damaged, or
    cannot be downloaded.
    """
    if name not in NETWORKS:
        raise ConfigError(f"features: {name!r} is not one of {', '.join(NETWORKS)}")
    network = NETWORKS[name]
    register_proxy()
    register_efficientnet()
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    weights = weights_of(network, weights)
    build = FEATURE_EXTRACTORS_REGISTRY[network.registered]
    layers = [layer for layer in (network.features, network.logits) if layer is not None]
    path = None if network.finds_file else str(weights)
    try:
        module = build(network.registered, layers, feature_extractor_weights_path=path, verbose=False)
    except (RuntimeError, OSError, KeyError) as error:
        if network.finds_file:
            raise DataError(
                f"cannot load {network.registered} ({error}); torch.hub looks for its code in {torch.hub.get_dir()}"
            ) from error
        raise DataError(f"{weights}: not the weights of {network.registered}") from error
    module = module.requires_grad_(False).eval().to(device)
    has_logits = network.logits is not None and getattr(module, "labelled", True)
    return Extractor(name, sha256(weights), module, torch.device(device), has_logits, precision)


def extractors(
    settings: Evaluate, weights: Callable[[str], Path | None], device: torch.device | str, precision: str
) -> tuple[Extractor, Extractor]:
    """The extractors `evaluate.features` and `evaluate.precision_features`: one object for both where they are equal.

    `weights` maps a name to its weights file, or None; `precision` is that of the stage; errors as in `extractor`.
    """
    first = extractor(settings.features, weights(settings.features), device, precision)
    if settings.precision_features == settings.features:
        return first, first
    return first, extractor(settings.precision_features, weights(settings.precision_features), device, precision)
