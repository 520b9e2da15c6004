"""A tokenizer that somebody else trained -> our VQGAN: its layout recognised, its architecture read from shapes."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vqlcmd.pretrained import authors_config
from vqlcmd.pretrained.families import CODEBOOK, IGNORED, LAYOUTS, Layout, Shapes, prefix, recognise
from vqlcmd.pretrained.tensors import about, read_tensors
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.tokenizer.blocks import Architecture
from vqlcmd.tokenizer.vqgan import VQGAN, build, load

FOLDER_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
RESOLUTION = 256
"""Where no configuration tells. It places nothing by itself: attention goes to the levels that have weights for it."""
SHOWN = 3


def read(
    source: Path, kind: str = "auto", config: Path | None = None, digest: str | None = None
) -> tuple[VQGAN, dict[str, Any]]:
    """The tokenizer of a checkpoint file, or of a diffusers folder, frozen; and where it comes from.

    `kind` is one of LAYOUTS, `own` or `auto`; `config` is the authors' configuration, looked for beside the file
    where None; `digest` a SHA-256 to insist on.
    ConfigError and DataError, in one line, where file, layout, configuration and digest do not fit together.
    """
    path = _weights(source)
    found = sha256(path)
    if digest is not None and found != digest:
        raise DataError(f"{path} has SHA-256 {found}, but vqgan.sha256 is {digest}: get the file again, or correct it")
    origin: dict[str, Any] = {"file": path.name, "sha256": found, "config": None}
    header = _own_header(path)
    if header or kind == "own":
        if kind not in ("auto", "own") or not header:
            who = "this project wrote" if header else "this project did not write"
            raise ConfigError(f"vqgan.format is {kind}, but {path} is a file that {who}: set it to auto")
        try:
            return load(path), {**origin, "format": "own", "origin": header.get("provenance")}
        except DataError:
            raise DataError(f"{path} is no whole tokenizer of this project: copy it again") from None
    if config and not config.is_file():
        raise ConfigError(f"vqgan.config is {config}, which is not a file: name one, or null")
    place = config or authors_config.beside(path)
    claimed = authors_config.parse(place) if place else {}
    if config and not claimed:
        raise ConfigError(f"vqgan.config is {config}, which tells of no tokenizer: name its configuration, or null")
    if place:
        authors_config.raise_if_unsupported(claimed, place)
        origin["config"] = {"file": place.name, "sha256": sha256(place)}
    try:
        vqgan, name = _convert(path, kind, claimed)
        _agree(vqgan.architecture, claimed)
    except ConfigError as error:
        raise ConfigError(f"{path}{f' with {place}' if place else ''}: {error}") from None
    return vqgan, {**origin, "format": name}


def _weights(source: Path) -> Path:
    if source.is_dir():
        inside = [source / name for name in FOLDER_FILES if (source / name).is_file()]
        if not inside:
            raise ConfigError(
                f"vqgan.checkpoint is the folder {source} without {FOLDER_FILES[0]}: name a file of weights"
            )
        return inside[0]
    if not source.is_file():
        raise ConfigError(f"vqgan.checkpoint is {source}, which is not a file: name one, or null to fit a tokenizer")
    return source


def _own_header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads(about(path).get("about", "{}"))
    except json.JSONDecodeError:
        return {}
    return header if isinstance(header, dict) and header.get("kind") == "VQGAN" else {}


def _convert(path: Path, kind: str, claimed: dict[str, Any]) -> tuple[VQGAN, str]:
    file = read_tensors(path)
    try:
        start = prefix(file.shapes)
        theirs = {name[len(start) :]: shape for name, shape in file.shapes.items() if name.startswith(start)}
        theirs = {name: shape for name, shape in theirs.items() if not IGNORED.match(name)}
        name = recognise(theirs) if kind == "auto" else kind
        layout = LAYOUTS[name]
        if not any(map(layout.marker.match, theirs)):
            raise ConfigError(f"vqgan.format is {name}, but its names are of {recognise(theirs)}: set it to auto")
        ours = layout.ours(theirs)
        shapes = {new: theirs[old] for old, new in ours.items()}
        if len(shapes) < len(ours):
            raise DataError("several names mean the same tensor: keep one tokenizer in the file, or set vqgan.format")
        architecture = infer(shapes, layout, claimed)
        expected = _expected(architecture)
        _fits(shapes, expected, name)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (RuntimeError, ValueError) as error:  # Sizes and numbers of levels beyond all measure.
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path}: its names and shapes are no tokenizer's ({reason}): get it again") from None
    tensors = file.read([start + old for old in ours])
    weights = {new: tensors[start + old].reshape(expected[new]) for old, new in ours.items()}
    broken = [new for new, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise DataError(f"{path} holds numbers that are not finite, in {broken[0]}: get it again")
    return build(architecture, _unit_codes(weights) if architecture.variant.unit_codes else weights), name


def _unit_codes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights | {CODEBOOK: F.normalize(weights[CODEBOOK], dim=1)}


def infer(shapes: Shapes, layout: Layout, claimed: dict[str, Any]) -> Architecture:
    """The architecture from the shapes of its tensors by our names; from `claimed` what these do not show.

    DataError where tensors are missing that tell; ConfigError where something must be claimed and is not.
    """

    def size(name: str, axis: int) -> int:
        if len(shapes.get(name, ())) <= axis:
            raise DataError(f"{name} is missing or of a wrong shape: get the file again, or set vqgan.format")
        return shapes[name][axis]

    def count(pattern: str) -> int:
        return len({found[1] for name in shapes if (found := re.match(pattern, name))})

    def any_of(start: str) -> bool:
        return any(name.startswith(start) for name in shapes)

    ch, levels = size("encoder.conv_in.weight", 0), count(r"encoder\.down\.(\d+)\.")
    widths = [size(f"encoder.down.{i}.block.0.conv1.weight", 0) for i in range(levels)]
    if not ch or not widths or any(width % ch or not width for width in widths):
        raise DataError(f"the widths of its levels {widths} are no multiples of the first one, {ch}: get it again")
    groups = claimed.get("groups", layout.variant.groups)
    if ch % groups:
        rule = f"{ch} channels are not in {groups} norm groups, and tensors do not tell how many there are"
        raise ConfigError(f"{rule}: name a configuration with norm_num_groups in vqgan.config")
    resolution = claimed.get("resolution", RESOLUTION)
    if resolution % 2 ** (levels - 1):
        raise ConfigError(f"resolution {resolution} is no multiple of {2 ** (levels - 1)}: name the right vqgan.config")
    blocks = count(r"encoder\.down\.0\.block\.(\d+)\.")
    cuts = [shape for name, shape in shapes.items() if name.endswith("nin_shortcut.weight")]
    shortcut: Literal["input", "output"] = "output" if cuts and cuts[0][:1] == cuts[0][1:2] else "input"
    return Architecture(
        resolution=resolution,
        ch=ch,
        ch_mult=tuple(width // ch for width in widths),
        num_res_blocks=blocks,
        attn_resolutions=tuple(resolution // 2**i for i in range(levels) if any_of(f"encoder.down.{i}.attn.")),
        z_channels=size("encoder.conv_out.weight", 0),
        embed_dim=size(CODEBOOK, 1),
        n_embed=size(CODEBOOK, 0),
        in_channels=size("encoder.conv_in.weight", 1),
        variant=dataclasses.replace(
            layout.variant,
            groups=groups,
            mid_blocks=count(r"encoder\.mid\.(block_\d+)\."),
            mid_attention=any_of("encoder.mid.attn_1."),
            extra_blocks=count(r"decoder\.up\.0\.block\.(\d+)\.") - blocks,
            biases="encoder.conv_in.bias" in shapes,
            pooled=levels > 1 and not count(r"encoder\.down\.(\d+)\.downsample\."),
            shortcut=shortcut,
            latent_kernel=size("encoder.conv_out.weight", 2),
            quant_convs="quant_conv.weight" in shapes,
            unit_codes=claimed.get("unit_codes", layout.variant.unit_codes),
        ),
    )


def _expected(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in VQGAN(architecture).state_dict().items()}


def _fits(shapes: Shapes, expected: Shapes, name: str) -> None:
    """DataError naming what is missing, what is too much and what has another shape. A 1x1 kernel may lack its ones."""
    wrong = [
        f"{key} is {shapes[key]} instead of {shape}"
        for key, shape in expected.items()
        if key in shapes and shapes[key] not in (shape, shape[:2] if shape[2:] == (1, 1) else shape)
    ]
    parts = [
        _listed("missing", [key for key in expected if key not in shapes]),
        _listed("unexpected", [key for key in shapes if key not in expected]),
        _listed("of another shape", wrong),
    ]
    if any(parts):
        remedy = "get the file again, or set vqgan.format"
        raise DataError(f"as {name} it does not hold together: {'; '.join(filter(None, parts))}: {remedy}")


def _listed(title: str, names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{title}: {', '.join(names[:SHOWN])}{more}" if names else ""


def _agree(architecture: Architecture, claimed: dict[str, Any]) -> None:
    """ConfigError where the configuration says otherwise than the tensors."""
    held = dataclasses.asdict(architecture)
    claimed = dict(claimed)
    if "resolution" not in claimed:
        claimed.pop("attn_resolutions", None)
    elif "attn_resolutions" in claimed:
        sides = [architecture.resolution // 2**i for i in range(len(architecture.ch_mult))]
        claimed["attn_resolutions"] = tuple(side for side in sides if side in claimed["attn_resolutions"])
    for name in held.keys() & claimed.keys():
        if held[name] != claimed[name]:
            remedy = "name the configuration of this file in vqgan.config"
            raise ConfigError(
                f"{name} is {claimed[name]} in the configuration, but {held[name]} by the tensors: {remedy}"
            )
