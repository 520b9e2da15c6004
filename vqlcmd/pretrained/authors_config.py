"""The configuration that authors publish beside a checkpoint: what it says about the tokenizer, under our names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqlcmd.runtime.errors import ConfigError, shown_repr
from vqlcmd.runtime.yaml_file import read_yaml

NAMES = {
    "resolution": ("resolution",),
    "ch": ("ch", "hidden_channels"),
    "ch_mult": ("ch_mult", "channel_mult", "encoder_ch_mult"),
    "num_res_blocks": ("num_res_blocks", "layers_per_block"),
    "attn_resolutions": ("attn_resolutions",),
    "z_channels": ("z_channels", "latent_channels"),
    "embed_dim": ("embed_dim", "vq_embed_dim", "codebook_embed_dim", "quantized_embed_dim"),
    "n_embed": ("n_embed", "num_vq_embeddings", "codebook_size", "num_embeddings"),
    "in_channels": ("in_channels", "num_channels"),
    "groups": ("norm_num_groups",),
    "unit_codes": ("codebook_l2_norm",),
    "tanh_out": ("tanh_out",),
}
"""Our name of each setting, and its names in the files of taming, LDM, diffusers, LlamaGen and MaskGIT's port."""
LISTS = ("ch_mult", "attn_resolutions")
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "norm_type": ("group",),
    "double_z": (False,),
    "resamp_with_conv": (True,),
    "resample_with_conv": (True,),
    "attn_type": ("vanilla", "vanilla-xformers", "none"),
    "use_linear_attn": (False,),
    "give_pre_end": (False,),
}
TRUTHS = ("unit_codes", "tanh_out")
MOST = 2**31
MOST_LISTED = 64
BYTES = 2**18
"""The largest configuration that is read; published ones have a few thousand bytes."""
MOST_PROJECTS = 16
PLACES = ("config.json", "model.yaml", "config.yaml", "configs/model.yaml", "../configs/model.yaml")
PROJECTS = ("*-project.yaml", "configs/*-project.yaml", "../configs/*-project.yaml")


def beside(weights: Path) -> Path | None:
    """The first file in a usual place that describes a tokenizer, or None. Of those of training runs, the latest."""
    folder = weights.absolute().parent  # not resolved: the file may be a link into a store outside of its folder
    dated = [path for pattern in PROJECTS for path in sorted(_glob(folder, pattern), reverse=True)[:MOST_PROJECTS]]
    for path in (*(folder / place for place in PLACES), *dated):
        try:
            if path.is_file() and parse(path):
                return path
        except ConfigError:
            continue
    return None


def parse(path: Path) -> dict[str, Any]:
    """What a YAML or JSON file says about a tokenizer, under our names; empty if it describes none.

    Raises ConfigError if the file is missing, too large or neither of the two, or if a value is of the wrong kind.
    """
    if path.is_file() and path.stat().st_size > BYTES:
        raise ConfigError(f"{path} has {path.stat().st_size} bytes, and a configuration has at most {BYTES}")
    said = _section(read_yaml(path))
    found: dict[str, Any] = {}
    for ours, theirs in NAMES.items():
        values = [said[name] for name in theirs if said.get(name) is not None]
        if values:
            found[ours] = tuple(values[0]) if isinstance(values[0], list) else values[0]
            if ours in TRUTHS:
                right, rule = isinstance(values[0], bool), "true or false"
            else:
                right = _counts(found[ours]) and (isinstance(values[0], list) or ours not in LISTS)
                rule = "a list of whole numbers from 1" if ours in LISTS else "whole numbers from 1"
            if not right:
                raise ConfigError(f"{path}: {ours} is {shown_repr(values[0])}, but must be {rule}: fix it there")
    widths = said.get("block_out_channels")
    if isinstance(widths, list) and widths and _counts(widths):
        found["ch"], found["ch_mult"] = widths[0], tuple(width / widths[0] for width in widths)
    if not {"ch", "ch_mult", "z_channels", "n_embed"} & found.keys():
        return {}
    if said.get("attn_type") == "none":
        found["attn_resolutions"] = ()
    return found | {name: said[name] for name in SUPPORTED if said.get(name) is not None} | _pixels(said)


def _counts(value: Any) -> bool:
    """Whether `value` is a whole number from 1, or a list of them, within the limits of a tokenizer."""
    numbers = value if isinstance(value, list | tuple) else [value]
    return len(numbers) <= MOST_LISTED and all(type(number) is int and 1 <= number <= MOST for number in numbers)


def _pixels(said: Mapping[str, Any]) -> dict[str, str]:
    """The range of the pixels, `unit` or `symmetric`, by the project that the configuration comes from.

    aMUSEd's folders are those of diffusers with `lookup_from_codebook`; open-muse, which trained them, has its own
    names.
    """
    of_open_muse = "quantized_embed_dim" in said or said.get("_class_name") in ("VQGANModel", "MaskGitVQGAN")
    if of_open_muse or said.get("lookup_from_codebook") is True:
        return {"pixel_range": "unit"}
    return {"pixel_range": "symmetric"}


def raise_if_unsupported(claimed: Mapping[str, Any], path: Path) -> None:
    """Raises ConfigError if the configuration names arithmetic that is not implemented here."""
    for name, values in SUPPORTED.items():
        if name in claimed and claimed[name] not in values:
            allowed = " or ".join(map(str, values))
            raise ConfigError(
                f"{path}: {name} is {shown_repr(claimed[name])}, but only {allowed} is supported: name another file"
            )


def _glob(folder: Path, pattern: str) -> list[Path]:
    above = pattern.startswith("../")
    return list((folder.parent if above else folder).glob(pattern.removeprefix("../")))


def _section(values: Any) -> dict[str, Any]:
    """The innermost section that describes a tokenizer, updated with its `ddconfig`."""
    for name in ("model", "params", "first_stage_config", "params"):
        if isinstance(values, dict) and isinstance(values.get(name), dict):
            values = values[name]
    if not isinstance(values, dict):
        return {}
    inner = values.get("ddconfig")
    return {**values, **inner} if isinstance(inner, dict) else values
