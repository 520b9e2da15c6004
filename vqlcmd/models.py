"""A trained method in one file, with all that is needed to build it again."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqlcmd import methods
from vqlcmd.config import ModelParams
from vqlcmd.method import Method
from vqlcmd.weights import load_weights, save_weights


def save_method(path: Path, method: Method, params: ModelParams, header: dict[str, Any], codebook_KD: Tensor) -> None:
    """Write the weights of `method` with all that is needed to build it again."""
    about = {
        "params": params.model_part().model_dump(mode="json"),
        "tokens": header["tokens"],
        "codes": len(codebook_KD),
        "class_names": header["classes"] if method.classes else [],
        "vqgan_digest": header["vqgan_digest"],
    }
    save_weights(path, "model", {**method.state_dict(), "vqgan_codebook": codebook_KD}, about)


def load_method(path: Path, device: torch.device) -> tuple[Method, dict[str, Any]]:
    """The frozen method in a model file, and what the file says about it."""
    tensors, about = load_weights(path, "model")
    codebook_KD = tensors.pop("vqgan_codebook")
    params = ModelParams.model_validate_json(json.dumps(about["params"]), strict=False)
    with torch.random.fork_rng(devices=[]):
        method = methods.build(params, codebook_KD, about["tokens"], len(about["class_names"]))
    method.load_state_dict(tensors)
    return method.to(device).eval().requires_grad_(False), about
