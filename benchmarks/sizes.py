"""The models that are measured: sizes, and methods with fresh weights, on which time does not depend."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import ROOT
from vqlcmd import methods
from vqlcmd.diffusion.method import Method
from vqlcmd.diffusion.transformer import compile_network
from vqlcmd.params import Params, Sampling, check_params
from vqlcmd.runtime import paths
from vqlcmd.runtime.yaml_file import read_yaml
from vqlcmd.tokens.shards import Split

METHODS = tuple(methods.METHODS)
DIGITS = 10
PAPER = {
    "method": "lcmd",
    "embedding_dim": 256,
    "network": {"layers": 15, "heads": 8, "width": 512, "dropout": 0.1, "positions": "sinusoidal"},
    "train": {"ema": 0.9999},
}


@dataclass(frozen=True)
class Size:
    """A model for images of `tokens` tokens out of `codes`, with `classes` classes."""

    params: Params
    tokens: int
    codes: int
    classes: int

    def build(self, device: str | torch.device = "cpu") -> Method:
        """The method with weights from seed 0."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            codebook_KD = torch.randn(self.codes, self.params.vqgan.embed_dim)
            return methods.build(self.params, codebook_KD, self.tokens, self.classes).to(device)

    def split(self, images: int, device: str | torch.device = "cpu") -> Split:
        """Random tokens and classes of so many images."""
        tokens = torch.randint(self.codes, (images, self.tokens)).to(torch.int16)
        labels = torch.randint(max(self.classes, 1), (images,))
        return Split(tokens, labels, torch.arange(images)).to(torch.device(device))

    def sampling(self, **changes: Any) -> Sampling:
        """How the parameters sample, but for what `changes`."""
        how = self.params.sampling()
        return Sampling(**{**vars(how), **changes})


def merged(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes` laid over them, section by section."""
    laid = {key: merged(values[key], new) if isinstance(new, Mapping) else new for key, new in changes.items()}
    return values | laid


def digits(path: str = "params.yaml", tokens: int | None = None, **changes: Any) -> Size:
    """The scale of a file of parameters on the handwritten digits, with other values where `changes` says so."""
    params = check_params(merged(read_yaml(ROOT / Path(path)), changes), path)
    grid = params.images.size // 2 ** (len(params.vqgan.ch_mult) - 1)
    return Size(params, tokens or grid**2, params.vqgan.n_embed, DIGITS)


def unconditional(batch_size: int, **train: Any) -> Size:
    """The paper's model without classes, 56M parameters, for images of 16 x 16 tokens out of 1,024."""
    params = digits(**merged(PAPER, {"train": {"batch_size": batch_size, **train}})).params
    return Size(params, tokens=256, codes=1024, classes=0)


def conditional(batch_size: int, **train: Any) -> Size:
    """The paper's model of ImageNet's 1,000 classes, 246M parameters."""
    changes = {"network": {"layers": 24, "heads": 16, "width": 768}, "train": {"batch_size": batch_size, **train}}
    return Size(digits(**merged(PAPER, changes)).params, tokens=256, codes=1024, classes=1000)


def tiny(method: str = "lcmd", batch_size: int = 4) -> Size:
    """So small that every benchmark runs within a second: for the tests."""
    return digits(
        method=method,
        embedding_dim=8,
        sample_steps=3,
        network={"layers": 2, "heads": 2, "width": 32},
        train={"batch_size": batch_size},
        sample={"batch_size": batch_size},
    )


def as_stages_run() -> None:
    """Compile the networks of this process where $VQLCMD_COMPILE is 1; the floors have nothing to compile."""
    if paths.compiles():
        compile_network()
