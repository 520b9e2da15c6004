"""A published tokenizer -> our VQGAN: its layout is recognised, its architecture read from its tensors' shapes."""

from pathlib import Path
from typing import Any

import torch.nn.functional as F

from vqlcmd.pretrained import authors_config, inference, used_codes
from vqlcmd.pretrained.families import CODEBOOK, IGNORED, LAYOUTS, USED, prefix, recognise
from vqlcmd.pretrained.tensors import about, read_tensors
from vqlcmd.runtime.errors import ConfigError, DataError, shown
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.paths import experiment_remedy
from vqlcmd.tokenizer.vqgan import VQGAN, build, load

FOLDER_FILES = ("vqgan.safetensors", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
FIRST_STAGE = "first_stage_model."
"""The prefix of a tokenizer's names in a latent diffusion model, or in one of taming's transformers."""


def read(
    source: Path,
    kind: str = "auto",
    config: Path | None = None,
    digest: str | None = None,
    pixel_range: str = "auto",
    used: Path | None = None,
) -> tuple[VQGAN, dict[str, Any]]:
    """The tokenizer in a checkpoint file or a diffusers folder, frozen, and a record of its origin.

    `kind` is one of LAYOUTS, `own` or `auto`; `config` is the authors' configuration, looked for beside the file if
    None; `digest` is a SHA-256 that the file must have; `pixel_range` is `unit`, `symmetric`, or `auto` if the files
    say which; `used` is a file with the codes in use, or with the token of each code: `used_codes.read_codes`.

    In the origin, `assumed` has the settings that tensors do not show and nobody gave, `codes` the number of codes if
    there are fewer tokens, and `used_codes` the file that says so. Raises ConfigError and DataError, in one line, if
    file, layout, configuration and digest do not fit together.
    """
    path = _weights(source)
    found = sha256(path)
    if digest is not None and found != digest:
        raise DataError(f"{path} has SHA-256 {found}, but vqgan.sha256 is {digest}: download it again, or correct it")
    origin: dict[str, Any] = {"file": path.name, "sha256": found, "config": None}
    header = about(path)
    header = header if header.get("kind") == "VQGAN" else {}
    if header or kind == "own":
        if used:
            raise ConfigError(
                f"vqgan.used_codes is {used}, but {path} is a file that this project wrote: set it to null"
            )
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
    if used:
        origin["used_codes"] = {"file": used.name, "sha256": sha256(used) if used.is_file() else None}
    try:
        vqgan, told = _convert(path, kind, claimed, pixel_range, used)
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


def _convert(
    path: Path, kind: str, claimed: dict[str, Any], pixel_range: str, beside: Path | None
) -> tuple[VQGAN, dict[str, Any]]:
    values = used_codes.read_codes(beside) if beside else None
    file = read_tensors(path)
    try:
        start = prefix(file.shapes)
        theirs = {name[len(start) :]: shape for name, shape in file.shapes.items() if name.startswith(start)}
        used = theirs.get(USED)
        if used is not None and beside:
            raise ConfigError(
                f"vqgan.used_codes is {beside}, but the file has a list of its own, {USED}: set it to null"
            )
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
    except (RuntimeError, ValueError) as error:  # Absurd sizes and numbers of levels.
        raise DataError(
            f"{path}: its names and shapes are no tokenizer's ({shown(error)}): download it again"
        ) from None
    tensors = file.read([start + old for old in ours])
    weights = {new: tensors[start + old].reshape(expected[new]) for old, new in ours.items()}
    broken = [new for new, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise DataError(f"{path} holds numbers that are not finite, in {broken[0]}: download it again")
    told = {"format": name, "assumed": inference.unsaid(layout, claimed, architecture, guess)}
    if used is not None or beside:
        told["codes"] = architecture.n_embed
    if used is not None:
        listed = file.read([start + USED])[start + USED]
        architecture, weights = used_codes.listed(architecture, weights, listed, f"{path}: {USED}")
    if beside and values is not None:
        architecture, weights = used_codes.chosen(architecture, weights, values, beside)
    if architecture.variant.unit_codes:
        weights[CODEBOOK] = F.normalize(weights[CODEBOOK], dim=1)
    return build(architecture, weights), told
