"""A name in params.yaml to the class that implements it, imported only when asked for; and its file on disk."""

import dataclasses
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from vqlcmd.diffusion.method import Method
from vqlcmd.params import ModelParams, RunParams
from vqlcmd.params.types import Section
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.safetensors_file import load_weights, save_weights

METHODS = {
    "lcmd": "LCMD",
    "d3pm": "D3PM",
    "vq_diffusion": "VQDiffusion",
    "maskgit": "MaskGIT",
    "mdlm": "MDLM",
    "flow_matching": "FlowMatching",
    "autoregressive": "Autoregressive",
}
"""`method` in params.yaml, which is the file's name too, to the class in that file."""


def build(params: ModelParams, codebook_KD: Tensor, tokens: int, classes: int) -> Method:
    """The method that params.yaml names, with fresh weights from the global random state."""
    return method_class(params.method)(params, codebook_KD, tokens, classes)


def method_class(name: str) -> type[Method]:
    """The class that `method: NAME` stands for."""
    return getattr(importlib.import_module(f"vqlcmd.methods.{name}"), METHODS[name])


def knobs() -> dict[str, type[Section]]:
    """The knobs of sampling that single methods have, {method: model}: `sample.METHOD` in params.yaml."""
    found = {name: method_class(name).knobs for name in METHODS}
    return {name: model for name, model in found.items() if model.model_fields}


def schedules() -> dict[str, str]:
    """Where the schedules of methods that move tokens are listed, {method: "module:NAME"}."""
    return {name: f"vqlcmd.methods.{name}:SCHEDULES" for name in METHODS if method_class(name).schedules}


def samplers() -> list[str]:
    """Every value of `sampler` that some method has."""
    return list(dict.fromkeys(sampler for name in METHODS for sampler in method_class(name).samplers))


def save_method(
    path: Path,
    method: Method,
    params: RunParams,
    header: dict[str, Any],
    codebook_KD: Tensor,
    edits: Sequence[dict[str, Any]] = (),
) -> None:
    """Write the weights of `method` with all that is needed to build it again, and how to sample unless told.

    `header` is that of its tokens; `edits` are the changes across which its training was resumed.
    """
    about = {
        "params": params.model_part().model_dump(mode="json"),
        "sampling": {**dataclasses.asdict(params.sampling()), "batch_size": params.sample.batch_size},
        "tokens": header["tokens"],
        "grid": header["grid"],
        # How pictures became what the tokens are of: who paints into one prepares it so.
        **({"images": header["images"]} if "images" in header else {}),
        "codes": len(codebook_KD),
        "class_names": header["classes"] if method.classes else [],
        "vqgan_digest": header["vqgan_digest"],
        "tokens_digest": belongs.header_digest(header),
        **({"resumed_across": list(edits)} if edits else {}),
    }
    save_weights(path, "model", {**method.state_dict(), "vqgan_codebook": codebook_KD}, about)


def load_method(path: Path, device: torch.device) -> tuple[Method, dict[str, Any]]:
    """The frozen method in a model file, and what the file says about it."""
    tensors, about = load_weights(path, "model")
    codebook_KD = tensors.pop("vqgan_codebook")
    try:
        params = ModelParams.model_validate_json(json.dumps(about["params"]), strict=False)
    except ValidationError:
        raise DataError(f"{path} was trained by another version of this project: `dvc repro` trains it anew") from None
    with torch.random.fork_rng(devices=[]):
        method = build(params, codebook_KD, about["tokens"], len(about["class_names"]))
    method.load_state_dict(tensors)
    if "grid" in about:
        method.grid = tuple(about["grid"])
    return method.to(device).eval().requires_grad_(False), about
