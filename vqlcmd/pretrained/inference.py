"""The architecture of a published tokenizer: read from the shapes of its tensors, compared with its configuration."""

import dataclasses
import re
from typing import Any, Literal, NamedTuple

import torch

from vqlcmd.pretrained.families import CODEBOOK, PROJECTION, Layout, Shapes
from vqlcmd.runtime.errors import ConfigError, DataError, shown, shown_repr
from vqlcmd.tokenizer.blocks import MOST_LEVELS, Architecture
from vqlcmd.tokenizer.vqgan import VQGAN, raise_if_too_few

RESOLUTION = 256
"""Used if no configuration gives one. It places nothing: attention goes to the levels that have weights for it."""
SHOWN = 3


class Pixels(NamedTuple):
    """The range of pixels that the network works in, and what is assumed if nothing says so."""

    unit: bool
    assumed: str | None


def infer(shapes: Shapes, layout: Layout, claimed: dict[str, Any], pixels: Pixels) -> Architecture:
    """The architecture, from the shapes of tensors under our names, and from `claimed` what shapes do not show.

    Raises DataError if a tensor that is needed is missing, and ConfigError if a setting must be claimed but is not.
    """

    def size(name: str, axis: int) -> int:
        if len(shapes.get(name, ())) <= axis:
            raise DataError(f"{name} is missing or of a wrong shape: download the file again, or set vqgan.format")
        return shapes[name][axis]

    def count(pattern: str) -> int:
        return len({found[1] for name in shapes if (found := re.match(pattern, name))})

    def any_of(start: str) -> bool:
        return any(name.startswith(start) for name in shapes)

    ch, levels = size("encoder.conv_in.weight", 0), count(r"encoder\.down\.(\d+)\.")
    if levels > MOST_LEVELS:
        raise DataError(f"it has {levels} levels, and a tokenizer at most {MOST_LEVELS}: download it again")
    widths = [size(f"encoder.down.{i}.block.0.conv1.weight", 0) for i in range(levels)]
    if not ch or not widths or any(width % ch or not width for width in widths):
        raise DataError(
            f"the widths of its levels {shown_repr(widths)} are no multiples of the first one, {ch}: download it again"
        )
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
    try:
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
                gumbel=PROJECTION in shapes,
                unit_pixels=pixels.unit,
                tanh_out=claimed.get("tanh_out", False),
            ),
        )
    except ConfigError as error:
        raise DataError(f"its names and shapes are no tokenizer's ({shown(error)}): download it again") from None


def pixels(layout: Layout, claimed: dict[str, Any], wanted: str, attention: bool, known: bool) -> Pixels:
    """The range of the pixels: the `wanted` one, else the family's own, else the claimed one, else a guess.

    The guess is -1 to 1. It is made without a remark if the family is `known`, from the user or from the prefix of the
    names, and with one if there is `attention` in the middle, which a family with the other range has too. Otherwise
    raises ConfigError.
    """
    if wanted != "auto":
        return Pixels(wanted == "unit", None)
    if layout.own_pixels:
        return Pixels(layout.variant.unit_pixels, None)
    if "pixel_range" in claimed:
        return Pixels(claimed["pixel_range"] == "unit", None)
    if not attention and not known:
        raise ConfigError(
            "nothing tells whether its pixels are from 0 to 1 (aMUSEd, open-muse) or from -1 to 1 (latent diffusion): "
            "set vqgan.pixel_range, or name its configuration in vqgan.config"
        )
    return Pixels(False, None if known else "from -1 to 1; with files of aMUSEd or open-muse set vqgan.pixel_range")


def unsaid(layout: Layout, claimed: dict[str, Any], architecture: Architecture, guess: Pixels) -> dict[str, str]:
    """{setting: the assumed value, in words} for what neither tensors show nor anybody gave."""
    variant = architecture.variant
    taken = {
        "pixel_range": guess.assumed,
        "tanh_out": None if claimed else "none after the last convolution",
        "unit_codes": f"{'' if variant.unit_codes else 'not '}divided by their norm (codebook_l2_norm)",
        "groups": f"{variant.groups} in each norm (norm_num_groups)",
    }
    return {name: text for name in layout.unsaid if name not in claimed and (text := taken[name])}


def expected(architecture: Architecture, tensors: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes of an architecture's tensors.

    Raises DataError if a file with `tensors` of them has far too few.
    """
    raise_if_too_few(architecture, tensors)
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in VQGAN(architecture).state_dict().items()}


def raise_if_unfit(shapes: Shapes, expected: Shapes, name: str) -> None:
    """Raises DataError naming tensors that are missing, unexpected or of another shape.

    A 1x1 kernel may be stored without its last two dimensions.
    """
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
        remedy = "download the file again, or set vqgan.format"
        raise DataError(f"as {name} it does not hold together: {'; '.join(filter(None, parts))}: {remedy}")


def _listed(title: str, names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{title}: {', '.join(shown(name, 200) for name in names[:SHOWN])}{more}" if names else ""


def raise_if_otherwise(architecture: Architecture, claimed: dict[str, Any]) -> None:
    """Raises ConfigError if the configuration contradicts the tensors."""
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
                f"{name} is {shown_repr(claimed[name])} in the configuration, but {shown_repr(held[name])} "
                f"by the tensors: {remedy}"
            )
