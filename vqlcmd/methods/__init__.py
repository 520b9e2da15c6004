"""The methods: a name in params.yaml to the class that implements it, imported only when asked for."""

import importlib

from torch import Tensor

from vqlcmd.config import ModelParams
from vqlcmd.method import Method

METHODS = {
    "lcmd": "LCMD",
    "d3pm": "D3PM",
    "vq_diffusion": "VQDiffusion",
    "maskgit": "MaskGIT",
    "autoregressive": "Autoregressive",
}
"""`method` in params.yaml, which is the file's name too, to the class in that file."""


def build(params: ModelParams, codebook_KD: Tensor, tokens: int, classes: int) -> Method:
    """The method that params.yaml names, with fresh weights from the global random state."""
    module = importlib.import_module(f"vqlcmd.methods.{params.method}")
    return getattr(module, METHODS[params.method])(params, codebook_KD, tokens, classes)
