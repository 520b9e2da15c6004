"""A tokenizer that somebody else trained -> our VQGAN: its layout recognised, its architecture read from shapes."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqlcmd.pretrained import authors_config, inference
from vqlcmd.pretrained.families import CODEBOOK, IGNORED, LAYOUTS, PROJECTION, USED, prefix, recognise
from vqlcmd.pretrained.tensors import about, read_tensors
from vqlcmd.runtime.errors import ConfigError, DataError, shown
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.paths import experiment_remedy
from vqlcmd.tokenizer.blocks import Architecture
from vqlcmd.tokenizer.vqgan import VQGAN, build, load

FOLDER_FILES = ("vqgan.safetensors", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
FIRST_STAGE = "first_stage_model."
"""Before the names of a tokenizer inside of a model of latent diffusion, or of taming's transformers."""


def read(
    source: Path,
    kind: str = "auto",
    config: Path | None = None,
    digest: str | None = None,
    pixel_range: str = "auto",
) -> tuple[VQGAN, dict[str, Any]]:
    """The tokenizer of a checkpoint file, or of a diffusers folder, frozen; and where it comes from.

    `kind` is one of LAYOUTS, `own` or `auto`; `config` is the authors' configuration, looked for beside the file
    where None; `digest` a SHA-256 to insist on; `pixel_range` is `unit`, `symmetric`, or `auto` where files tell it.
    Under `assumed` the origin has what nobody told and tensors do not show, under `codes` the whole codebook's size
    where only some of its codes are in use.
    ConfigError and DataError, in one line, where file, layout, configuration and digest do not fit together.
    """
    path = _weights(source)
    found = sha256(path)
    if digest is not None and found != digest:
        raise DataError(f"{path} has SHA-256 {found}, but vqgan.sha256 is {digest}: download it again, or correct it")
    origin: dict[str, Any] = {"file": path.name, "sha256": found, "config": None}
    header = about(path)
    header = header if header.get("kind") == "VQGAN" else {}
    if header or kind == "own":
        return _own(path, header, kind, pixel_range), {**origin, "format": "own", "origin": header.get("provenance")}
    if config and not config.is_file():
        raise ConfigError(
            f"vqgan.config is {config}, which is not a file: name one, or null{experiment_remedy(config)}"
        )
    place = config or authors_config.beside(path)
    claimed = authors_config.parse(place) if place else {}
    if config and not claimed:
        raise ConfigError(f"vqgan.config is {config}, which tells of no tokenizer: name its configuration, or null")
    if place:
        authors_config.raise_if_unsupported(claimed, place)
        origin["config"] = {"file": place.name, "sha256": sha256(place)}
    try:
        vqgan, told = _convert(path, kind, claimed, pixel_range)
    except ConfigError as error:
        raise ConfigError(f"{path}{f' with {place}' if place else ''}: {error}") from None
    return vqgan, {**origin, **told}


def _weights(source: Path) -> Path:
    if source.is_dir():
        inside = [source / name for name in FOLDER_FILES if (source / name).is_file()]
        if not inside:
            raise ConfigError(
                f"vqgan.checkpoint is the folder {source} without {FOLDER_FILES[0]} or {FOLDER_FILES[1]}: name a file"
            )
        return inside[0]
    if not source.is_file():
        raise ConfigError(
            f"vqgan.checkpoint is {source}, which is not a file: name one, or null to fit a tokenizer"
            f"{experiment_remedy(source)}"
        )
    return source


def _own(path: Path, header: dict[str, Any], kind: str, pixel_range: str) -> VQGAN:
    if kind not in ("auto", "own") or not header:
        who = "this project wrote" if header else "this project did not write"
        raise ConfigError(f"vqgan.format is {kind}, but {path} is a file that {who}: set it to auto")
    try:
        vqgan = load(path)
    except DataError as error:
        raise DataError(f"{path} is no whole tokenizer of this project ({shown(error, 200)}): copy it again") from None
    if pixel_range not in ("auto", "unit" if vqgan.architecture.variant.unit_pixels else "symmetric"):
        raise ConfigError(f"vqgan.pixel_range is {pixel_range}, but {path} says otherwise of itself: set it to auto")
    return vqgan


def _convert(path: Path, kind: str, claimed: dict[str, Any], pixel_range: str) -> tuple[VQGAN, dict[str, Any]]:
    file = read_tensors(path)
    try:
        start = prefix(file.shapes)
        theirs = {name[len(start) :]: shape for name, shape in file.shapes.items() if name.startswith(start)}
        used = theirs.get(USED)
        theirs = {name: shape for name, shape in theirs.items() if not IGNORED.match(name)}
        name = recognise(theirs) if kind == "auto" else kind
        layout = LAYOUTS[name]
        if not any(map(layout.marker.match, theirs)):
            raise ConfigError(f"vqgan.format is {name}, but its names are of {recognise(theirs)}: set it to auto")
        ours = layout.ours(theirs)
        shapes = {new: theirs[old] for old, new in ours.items()}
        if len(shapes) < len(ours):
            raise DataError("several names mean the same tensor: keep one tokenizer in the file, or set vqgan.format")
        claimed = {key: value for key, value in claimed.items() if key not in layout.unused}
        if isinstance(norm := file.settings.get("codebook_l2_norm"), bool):
            claimed = {"unit_codes": norm} | claimed
        attention = any(new.startswith("encoder.mid.attn_1.") for new in shapes)
        known = kind in ("taming", "ldm") or start.endswith(FIRST_STAGE)
        guess = inference.pixels(layout, claimed, pixel_range, attention, known)
        architecture = inference.infer(shapes, layout, claimed, guess)
        expected = inference.expected(architecture, len(shapes))
        inference.raise_if_unfit(shapes, expected, name)
        inference.raise_if_otherwise(architecture, claimed)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (RuntimeError, ValueError) as error:  # Sizes and numbers of levels beyond all measure.
        raise DataError(
            f"{path}: its names and shapes are no tokenizer's ({shown(error)}): download it again"
        ) from None
    tensors = file.read([start + old for old in ours])
    weights = {new: tensors[start + old].reshape(expected[new]) for old, new in ours.items()}
    broken = [new for new, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise DataError(f"{path} holds numbers that are not finite, in {broken[0]}: download it again")
    told = {"format": name, "assumed": inference.unsaid(layout, claimed, architecture, guess)}
    if used is not None:
        told["codes"] = architecture.n_embed
        codes = file.read([start + USED])[start + USED]
        architecture, weights = _in_use(path, architecture, weights, codes)
    if architecture.variant.unit_codes:
        weights[CODEBOOK] = F.normalize(weights[CODEBOOK], dim=1)
    return build(architecture, weights), told


def _in_use(
    path: Path, architecture: Architecture, weights: dict[str, Tensor], used: Tensor
) -> tuple[Architecture, dict[str, Tensor]]:
    """The tokenizer with the `used` codes alone, in their order. DataError where these are no codes."""
    codes = used.long()
    whole = used.ndim == 1 and torch.equal(codes.float(), used)
    if (
        not whole
        or not 2 <= len(codes.unique()) == len(codes)
        or codes.min() < 0
        or codes.max() >= architecture.n_embed
    ):
        raise DataError(
            f"{path}: {USED} is no list of different codes below {architecture.n_embed}: download the file again"
        )
    names = (CODEBOOK, PROJECTION, PROJECTION.replace("weight", "bias"))
    chosen = {name: weights[name][codes] for name in names if name in weights}
    return dataclasses.replace(architecture, n_embed=len(codes)), weights | chosen
