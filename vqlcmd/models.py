"""A trained method in one file, with all that is needed to build it again."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqlcmd import methods
from vqlcmd.checkpoint import load_model, save_model
from vqlcmd.config import ModelParams


def save_method(path: Path, method: nn.Module, params: ModelParams, header: dict[str, Any], codebook_KD: Tensor) -> None:
    """Write the weights of `method` with all that is needed to build it again."""
    about = {
        "params": params.model_part().model_dump(mode="json"),
        "tokens": header["tokens"],
        "codes": len(codebook_KD),
        "class_names": header["classes"] if method.classes else [],
        "vqgan_digest": header["vqgan_digest"],
    }
    save_model(path, {**method.state_dict(), "vqgan_codebook": codebook_KD}, about)


def load_method(path: Path, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """The frozen method in a model file, and what the file says about it."""
    tensors, about = load_model(path)
    codebook_KD = tensors.pop("vqgan_codebook")
    params = ModelParams.model_validate_json(json.dumps(about["params"]), strict=False)
    with torch.random.fork_rng(devices=[]):
        method = methods.build(params, codebook_KD, about["tokens"], len(about["class_names"]))
    method.load_state_dict(tensors)
    return method.to(device).eval().requires_grad_(False), about
