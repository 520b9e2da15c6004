"""The networks whose features the metrics use: their layers, and where their weights come from."""

import pickle
from dataclasses import dataclass
from pathlib import Path

import torch

from vqlcmd import efficientnet
from vqlcmd.evaluation.fidelity import EFFICIENTNET, PROXY
from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.files import sha256


@dataclass(frozen=True)
class Download:
    """A file in $TORCH_HOME/hub/checkpoints: `digest` is the SHA-256 or its start, "" if none is published."""

    url: str
    digest: str
    name: str = ""
    archive: bool = False
    """Whether it is a TorchScript archive, which contains code: its full digest has to match, wherever it is from."""

    def path(self) -> Path:
        """Where torch-fidelity looks for the file."""
        return Path(torch.hub.get_dir()) / "checkpoints" / (self.name or self.url.rpartition("/")[2])


@dataclass(frozen=True)
class Network:
    """A network in torch-fidelity: its name there, the layers that are used, and its download if it has one."""

    registered: str
    features: str
    logits: str | None = None
    download: Download | None = None
    finds_file: bool = False
    """Whether torch-fidelity accepts no path for it and only looks where it would download it to."""


_CLIP = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"

NETWORKS = {
    "proxy": Network(PROXY, "features", "logits"),
    "inception": Network(
        "inception-v3-compat",
        "2048",
        "logits_unbiased",
        Download(
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
            "6726825d",
        ),
    ),
    "efficientnet": Network(EFFICIENTNET, "features", "logits"),
    "dinov2": Network(
        "dinov2-vit-l-14",
        "dinov2",
        download=Download("https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth", ""),
        finds_file=True,
    ),
    "clip": Network(
        "clip-vit-b-32",
        "clip",
        download=Download(
            f"https://openaipublic.azureedge.net/clip/models/{_CLIP}/ViT-B-32.pt",
            _CLIP,
            name=f"clip-vit-b-32-{_CLIP}.pt",
            archive=True,
        ),
    ),
    "vgg16": Network(
        "vgg16", "fc2_relu", download=Download("https://download.pytorch.org/models/vgg16-397923af.pth", "397923af")
    ),
}
"""Valid values of `evaluate.features` and `evaluate.precision_features` in params.yaml."""


def weights_of(network: Network, given: Path | None) -> Path:
    """Path of the weights file, checked: the `given` one, that of a package, or torch-fidelity's download.

    Raises DataError for a file that is missing, holds more than tensors, has another digest or cannot be downloaded.
    """
    assert given is None or not network.finds_file, given
    if given is not None and not given.is_file():
        raise DataError(f"{given}: no such file; it should hold the weights of {network.registered}")
    if network.registered == PROXY:
        if given is None:
            raise DataError(f"{PROXY} needs the weights file that the reference stage writes")
        return given
    if network.download is None:
        weights = given or efficientnet.weights_file()
    else:
        weights = given or _downloaded(network.registered, network.download)
        if network.download.archive:
            if sha256(weights) != network.download.digest:
                raise DataError(f"{weights}: not the published file of {network.registered}: delete it")
            return weights
    _check_holds_tensors_only(weights)
    return weights


def _downloaded(registered: str, download: Download) -> Path:
    """Path at which torch-fidelity keeps the file, which is downloaded if it is missing."""
    place = download.path()
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(download.url, str(place), download.digest or None, progress=False)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"cannot download the weights of {registered} ({error}); fetch {download.url} on another "
                f"machine and put it at {place} ($TORCH_HOME/hub/checkpoints/{place.name})"
            ) from error
    return place


def _check_holds_tensors_only(weights: Path) -> None:
    """DataError for a file with anything but tensors, which torch-fidelity would unpickle without a check."""
    try:
        torch.load(weights, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise DataError(f"{weights}: not a file of weights (nothing but tensors, as torch.save writes them)") from error
