"""A name in params.yaml to the class that implements it, imported only when asked for; and its file on disk."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqlcmd.diffusion.method import Method
from vqlcmd.params import ModelParams
from vqlcmd.runtime.safetensors_file import load_weights, save_weights

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


def save_method(
    path: Path,
    method: Method,
    params: ModelParams,
    header: dict[str, Any],
    codebook_KD: Tensor,
    edits: Sequence[dict[str, Any]] = (),
) -> None:
    """Write the weights of `method` with all that is needed to build it again.

    `header` is that of its tokens; `edits` are the changes across which its training was resumed.
    """
    about = {
        "params": params.model_part().model_dump(mode="json"),
        "tokens": header["tokens"],
        "codes": len(codebook_KD),
        "class_names": header["classes"] if method.classes else [],
        "vqgan_digest": header["vqgan_digest"],
        **({"resumed_across": list(edits)} if edits else {}),
    }
    save_weights(path, "model", {**method.state_dict(), "vqgan_codebook": codebook_KD}, about)


def load_method(path: Path, device: torch.device) -> tuple[Method, dict[str, Any]]:
    """The frozen method in a model file, and what the file says about it."""
    tensors, about = load_weights(path, "model")
    codebook_KD = tensors.pop("vqgan_codebook")
    params = ModelParams.model_validate_json(json.dumps(about["params"]), strict=False)
    with torch.random.fork_rng(devices=[]):
        method = build(params, codebook_KD, about["tokens"], len(about["class_names"]))
    method.load_state_dict(tensors)
    return method.to(device).eval().requires_grad_(False), about
