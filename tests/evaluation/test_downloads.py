"""DINOv2 and CLIP on torch-fidelity's own path, with random weights in the formats that are published."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from vqlcmd.evaluation import networks
from vqlcmd.evaluation.extractors import extractor
from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.torchvision_guard import guard_torchvision

# What torch.hub finds of facebookresearch/dinov2, with a network small enough for a test.
HUBCONF = """
import torch
from torch import nn

dependencies = ["torch"]


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 24, 14, 14)

    def forward(self, x):
        return self.patch_embed(x).mean(dim=(2, 3))


def dinov2_vitl14(pretrained=True):
    url = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"
    model = Tiny()
    model.load_state_dict(torch.hub.load_state_dict_from_url(url, map_location="cpu"))
    return model
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """$TORCH_HOME, and no network."""
    guard_torchvision()

    def unreachable(*_args: object, **_options: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub"


def images(count: int = 3) -> Tensor:
    return torch.randint(256, (count, 3, 40, 40), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def put_clip(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A TorchScript archive with CLIP's keys, and its digest in the place of the published one."""
    from torch_fidelity.feature_extractor_clip import CLIPVisual

    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = CLIPVisual(16, 64, 2, 64, 32).visual
            self.text_projection = nn.Parameter(torch.randn(8, 16))
            self.logit_scale = nn.Parameter(torch.ones(()))

        def forward(self, image: Tensor) -> Tensor:
            return self.visual(image)

    torch.manual_seed(0)
    model = Clip().eval()
    torch.jit.save(torch.jit.trace(model, torch.zeros(1, 3, 64, 64)), path)
    network = networks.NETWORKS["clip"]
    assert network.download is not None
    changed = networks.Download(network.download.url, sha256(path), network.download.name, archive=True)
    monkeypatch.setitem(networks.NETWORKS, "clip", networks.Network("clip-vit-b-32", "clip", download=changed))
    return model


def clip_path() -> Path:
    download = networks.NETWORKS["clip"].download
    assert download is not None
    return download.path()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_clip_features_are_those_of_the_archives_network(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = put_clip(clip_path(), monkeypatch)
    extract = extractor("clip")
    found = extract(images())
    assert found.logits is None
    assert extract.digest == sha256(clip_path())
    spread = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as resized

    x = resized(images().float(), size=(64, 64), align_corners=False) / 255
    centred = x - torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    with torch.no_grad():
        expected = model(centred / spread)
    # The published file is read in half precision.
    torch.testing.assert_close(found.features, expected, rtol=0.02, atol=0.02)


def test_a_clip_archive_of_another_digest_is_not_opened(home: Path) -> None:
    """TorchScript archives hold code."""
    clip_path().write_bytes(b"anything")
    with pytest.raises(DataError, match="not the published file of clip-vit-b-32: delete it"):
        extractor("clip")


def test_dinov2_is_built_by_its_own_code_with_weights_that_were_put_there(home: Path) -> None:
    place = home / "checkpoints" / "dinov2_vitl14_pretrain.pth"
    torch.manual_seed(0)
    torch.save({"patch_embed.weight": torch.randn(24, 3, 14, 14), "patch_embed.bias": torch.randn(24)}, place)
    code = home / "facebookresearch_dinov2_main"
    code.mkdir()
    (code / "hubconf.py").write_text(HUBCONF, encoding="utf-8")
    extract = extractor("dinov2")
    found = extract(images())
    assert found.features.shape == (3, 24)
    assert found.logits is None
    assert extract.digest == sha256(place)
    assert found.features.std() > 0


@pytest.mark.parametrize("name", ["dinov2", "clip"])
def test_without_a_network_the_error_says_which_file_to_put_where(name: str, home: Path) -> None:
    with pytest.raises(DataError, match="Name or service not known") as failure:
        extractor(name)
    download = networks.NETWORKS[name].download
    assert download is not None
    assert str(download.path()) in str(failure.value)
    assert download.url in str(failure.value)
    assert "\n" not in str(failure.value)


def test_without_dinov2s_code_the_error_says_where_it_is_looked_for(home: Path) -> None:
    torch.save({"a": torch.zeros(1)}, home / "checkpoints" / "dinov2_vitl14_pretrain.pth")
    with pytest.raises(DataError, match=r"cannot load dinov2-vit-l-14 .*looks for its code in") as failure:
        extractor("dinov2")
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize("name", ["clip-vit-b-32", "dinov2-vit-l-14", "inception-v3-compat", "vgg16"])
def test_torch_fidelity_knows_the_networks_by_these_names_and_places(name: str) -> None:
    guard_torchvision()
    from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    network = next(each for each in networks.NETWORKS.values() if each.registered == name)
    provided = FEATURE_EXTRACTORS_REGISTRY[name].get_provided_features_list()
    assert {network.features, network.logits or network.features} <= set(provided)
    if name in MODEL_URLS:
        assert network.download is not None
        assert network.download.url == MODEL_URLS[name]
        assert network.download.digest == MODEL_METADATA[name]["hash"]
        assert network.download.path().name == f"{name}-{network.download.digest}.pt"
