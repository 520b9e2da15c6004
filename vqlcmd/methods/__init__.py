"""The methods by their names in params.yaml, imported lazily, and the file that a trained model is saved in."""

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

import vqlcmd
from vqlcmd.diffusion.method import Method
from vqlcmd.params import ModelParams, RunParams, saved
from vqlcmd.params.errors import rule
from vqlcmd.params.types import Precision, Section
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.errors import ConfigError, DataError, shown, shown_repr
from vqlcmd.runtime.safetensors_file import load_weights, save_weights
from vqlcmd.runtime.shapes import shapes_alone

METHODS = {
    "lcmd": "LCMD",
    "d3pm": "D3PM",
    "vq_diffusion": "VQDiffusion",
    "maskgit": "MaskGIT",
    "mdlm": "MDLM",
    "flow_matching": "FlowMatching",
    "autoregressive": "Autoregressive",
}
"""Maps `method` in params.yaml, which is also the name of the method's module, to the class in that module."""
REMEDY = "install that version to use it, or `dvc repro` trains it anew"
"""The end of error messages about a model file that another version wrote: what the user can do."""


def build(params: ModelParams, codebook_KD: Tensor, tokens: int, classes: int) -> Method:
    """The method `params.method`, with new weights drawn from the global random state; `classes` is 0 for none."""
    return method_class(params.method)(params, codebook_KD, tokens, classes)


def method_class(name: str) -> type[Method]:
    """The class of the method `name`."""
    return getattr(importlib.import_module(f"vqlcmd.methods.{name}"), METHODS[name])


def knobs() -> dict[str, type[Section]]:
    """{method: model} of the sampling parameters that only this method has, its knobs: `sample.METHOD` in params.yaml.

    Methods without any are left out.
    """
    found = {name: method_class(name).knobs for name in METHODS}
    return {name: model for name, model in found.items() if model.model_fields}


def schedules() -> dict[str, str]:
    """{method: "module:NAME"}: where each method that masks or replaces tokens lists its noise schedules."""
    return {name: f"vqlcmd.methods.{name}:SCHEDULES" for name in METHODS if method_class(name).schedules}


def samplers() -> list[str]:
    """Every value of `sampler` that at least one method supports."""
    return list(dict.fromkeys(sampler for name in METHODS for sampler in method_class(name).samplers))


def save_method(
    path: Path,
    method: Method,
    params: RunParams,
    header: dict[str, Any],
    codebook_KD: Tensor,
    edits: Sequence[dict[str, Any]] = (),
    teacher: str | None = None,
) -> None:
    """Write a model file: the weights of `method`, all that is needed to rebuild it, and its default sampling settings.

    `header` is the header of its token shards; `edits` are the changes of code or parameters across which its training
    was resumed; `teacher` is the SHA-256 of the file of the model that it was distilled from, if any.
    """
    about = described(method, params, header, codebook_KD, edits, teacher)
    save_weights(path, "model", {**method.state_dict(), "vqgan_codebook": codebook_KD}, about)


def described(
    method: Method,
    params: RunParams,
    header: dict[str, Any],
    codebook_KD: Tensor,
    edits: Sequence[dict[str, Any]] = (),
    teacher: str | None = None,
) -> dict[str, Any]:
    """The metadata of a model file, as JSON values; arguments as in `save_method`."""
    return {
        "vqlcmd": vqlcmd.__version__,
        "params": (dumped := params.model_part().model_dump(mode="json")),
        "of_training": saved.of_training(dumped, method.built_by),
        "sampling": {**dataclasses.asdict(params.sampling()), "batch_size": params.sample.batch_size},
        "tokens": header["tokens"],
        "grid": header["grid"],
        # How images or text were preprocessed: in-painting and infilling prepare their input in the same way.
        **{what: header[what] for what in ("images", "text") if what in header},
        "codes": len(codebook_KD),
        "class_names": header["classes"] if method.classes else [],
        "vqgan_digest": header["vqgan_digest"],
        "tokens_digest": belongs.header_digest(header),
        **({"teacher_digest": teacher} if teacher else {}),
        **({"resumed_across": list(edits)} if edits else {}),
    }


class _Usual(BaseModel):
    """A model's default sampling settings: those of params.yaml in its training."""

    # A setting that this version does not know would change the samples.
    model_config = ConfigDict(extra="forbid")

    steps: Annotated[int, Field(ge=1, le=10**6)]
    sampler: str
    guidance: Annotated[float, Field(ge=0)]
    own: dict[str, Any]
    batch_size: Annotated[int, Field(ge=1, le=2**16)]
    precision: Precision | None = None
    """None in files written before there was a choice; those models sample in float32."""


class _About(BaseModel):
    """The part of a model file's metadata that this module relies on."""

    vqlcmd: Annotated[str, Field(max_length=64)] | None = None
    params: dict[str, Any]
    of_training: Annotated[list[str], Field(max_length=2**10)] = []
    sampling: _Usual | None = None
    tokens: Annotated[int, Field(ge=1, le=2**20)]
    images: dict[str, Any] | None = None
    codes: Annotated[int, Field(ge=1, le=2**16)]
    class_names: Annotated[list[Annotated[str, Field(max_length=4096)]], Field(max_length=2**20)]


def read_params(about: Mapping[str, Any]) -> ModelParams:
    """The parameters that build a model, from the metadata of its file.

    ValueError, in one line, where this version cannot build it.
    """
    try:
        said = _About.model_validate(dict(about), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        key = shown(".".join(map(str, problem["loc"])))
        unknown = problem["type"] == "extra_forbidden"
        what = f"it has `{key}`, which this version does not know" if unknown else f"`{key}`: {rule(problem)}"
        raise ValueError(what) from None
    name = said.params.get("method")
    if name not in METHODS:
        raise ValueError(f"its method is {shown_repr(name)}, which this version does not have")
    method = method_class(name)
    others = sorted(set(said.sampling.own if said.sampling else ()) - set(method.knobs.model_fields))
    if others:
        raise ValueError(f"it has `sampling.own.{shown(others[0])}`, which this version does not know")
    return saved.read(said.params, method.built_by, said.of_training)


def _of_version(about: Mapping[str, Any]) -> str:
    version = about.get("vqlcmd")
    return f"was trained by another version of this project, {shown(version, 64) if version else 'an earlier one'}"


def load_method(path: Path, device: torch.device) -> tuple[Method, dict[str, Any]]:
    """The frozen method in a model file, in eval mode on `device`, and the file's metadata.

    DataError where this version cannot build the model, or where weights and metadata disagree.
    """
    tensors, about = load_weights(path, "model")
    try:
        params = read_params(about)
        codebook_KD = tensors.pop("vqgan_codebook")
    except (ValueError, KeyError) as error:
        reason = "it has no codebook" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path} {_of_version(about)}: {reason}: {REMEDY}") from None
    classes = len(about["class_names"])
    with torch.random.fork_rng(devices=[]):
        _raise_if_other(path, params, codebook_KD, about, tensors)
        method = build(params, codebook_KD, about["tokens"], classes)
    method.load_state_dict(tensors)
    if "grid" in about:
        method.grid = tuple(about["grid"])
    return method.to(device).eval().requires_grad_(False), about


def _raise_if_other(
    path: Path, params: ModelParams, codebook_KD: Tensor, about: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """DataError where the weights do not fit the network that the file describes; checked before it is allocated."""
    remedy = "get the file again, or `dvc repro` trains it anew"
    if codebook_KD.ndim != 2 or len(codebook_KD) != about["codes"] or params.network.layers > len(tensors):
        raise DataError(f"{path}: its weights are not those of the network that it describes: {remedy}")
    try:
        with shapes_alone():
            table = torch.empty(codebook_KD.shape)
            described = build(params, table, about["tokens"], len(about["class_names"])).state_dict()
    except (RuntimeError, ValueError, ConfigError) as error:
        raise DataError(f"{path}: no network is as it describes ({shown(error)}): {remedy}") from None
    names = sorted(described.keys() ^ tensors.keys())
    names += [name for name, tensor in described.items() if name in tensors and tensors[name].shape != tensor.shape]
    if names:
        raise DataError(
            f"{path}: its weights are not those of the network that it describes, such as {shown(names[0])}: {remedy}"
        )
