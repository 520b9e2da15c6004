"""How other projects name a VQGAN's tensors, and which parts of their arithmetic no tensor shows.

Names in this module come after the prefix of the tokenizer, which `prefix` finds.
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.tokenizer.blocks import TAMING, Variant

Shapes = Mapping[str, tuple[int, ...]]
CODEBOOK = "quantize.embedding.weight"
GUMBEL, PROJECTION, USED = "quantize.embed.weight", "quantize.proj.weight", "quantize.used"
PREFIX = re.compile(r"((first_stage_model|module|_orig_mod|model|ae)\.)*")
"""Prefixes that are preferred where a file holds several tokenizers; a single tokenizer may have any other prefix."""
ENCODER = re.compile(r"((?:[^.]+\.)*?)encoder\.")
BESIDE = re.compile(r"\.(loss|model_ema|cond_stage_model|disc|discriminator|perceptual|perceptual_loss)\.")
IGNORED = re.compile(
    r"(loss|colorize|model_ema|cond_stage_model|disc|discriminator|perceptual|perceptual_loss|quantize\.used|quantize\.codebook_used"
    r"|quantize\.(embedding\.)?(cluster_size|embed_avg)|generator\.logsigma)(\.|$)"
)
"""Beside or inside a tokenizer, but no part of it: losses, averages of a training run, statistics of the codebook."""


class Layout(NamedTuple):
    """One family: a name that only its files have, its names in ours, and the arithmetic that tensors do not show."""

    marker: re.Pattern[str]
    ours: Callable[[Shapes], dict[str, str]]
    """Maps their names to ours, leaving out tensors that do nothing."""
    variant: Variant = TAMING
    """Only `groups`, `swish_out`, `unit_codes` and `unit_pixels` are used: shapes show the rest."""
    own_pixels: bool = False
    """Whether all files of the family have the variant's range of pixels; else only a configuration can tell."""
    unused: frozenset[str] = frozenset()
    """Settings in the family's configurations for parts that its network does not have."""
    unsaid: tuple[str, ...] = ("pixel_range", "tanh_out")
    """Settings that differ within the family and that only a configuration gives."""


def prefix(names: Collection[str]) -> str:
    """The prefix of the tokenizer's names. Raises DataError if there is no tokenizer, or more than one."""
    known = set(names)
    books = {name.removesuffix(CODEBOOK) for name in known if name.endswith(CODEBOOK)}
    books |= {
        name.removesuffix(GUMBEL)
        for name in known
        if name.endswith(GUMBEL) and f"{name.removesuffix(GUMBEL)}{PROJECTION}" in known
    }
    encoders = {found[1] for name in known if (found := ENCODER.match(name))}
    found = sorted(start for start in books & encoders if not BESIDE.search(f".{start}"))
    found = [start for start in found if PREFIX.fullmatch(start)] or found
    if len(found) == 1:
        return found[0]
    if found:
        several = " and ".join(repr(start) for start in found[:3])
        raise DataError(f"there are tokenizers under {several}: keep one of them")
    if books:
        raise DataError(f"{CODEBOOK} is there, but no encoder under the same prefix {sorted(books)[0]!r}: name a VQGAN")
    if any(name.endswith("post_quant_conv.weight") for name in known):
        raise DataError(f"it is an autoencoder without a codebook ({CODEBOOK} is missing): name a VQGAN")
    raise DataError(f"no name ends in {CODEBOOK}, but in such as {_some(names)}: name a VQGAN of docs/tokenizers.md")


def recognise(names: Collection[str]) -> str:
    """The first of LAYOUTS whose marker matches one of the names. Raises ConfigError if there is none."""
    for name, layout in LAYOUTS.items():
        if any(map(layout.marker.match, names)):
            return name
    raise ConfigError(f"names such as {_some(names)} are of no known layout: docs/tokenizers.md lists them")


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:2])


def _rules(*pairs: tuple[str, str]) -> Callable[[Shapes], dict[str, str]]:
    """A renaming by patterns, applied one after the other. `up.-K` becomes the Kth level from the coarsest."""
    compiled = [(re.compile(pattern), new) for pattern, new in ((r"^quantize\.embed\.", "quantize.embedding."), *pairs)]

    def ours(shapes: Shapes) -> dict[str, str]:
        renamed = {}
        for name in shapes:
            new = name
            for pattern, replacement in compiled:
                new = pattern.sub(replacement, new)
            renamed[name] = new
        levels = {int(found[1]) for new in renamed.values() if (found := re.match(r"decoder\.up\.-(\d+)\.", new))}
        last = max(levels, default=0)
        return {
            name: re.sub(r"^(decoder\.up\.)-(\d+)", lambda found: f"{found[1]}{last - int(found[2])}", new)
            for name, new in renamed.items()
        }

    return ours


def _flat(shapes: Shapes) -> dict[str, str]:
    """Renames unleashing-transformers' tensors: encoder.blocks.N and generator.blocks.N, in the order they run."""
    places = {side: _places(shapes, side) for side in ("encoder", "generator")}
    renamed = {}
    for name in shapes:
        found = re.match(r"(encoder|generator)\.blocks\.(\d+)\.(.*)", name)
        if not found:
            renamed[name] = name
            continue
        side, number, rest = found[1], int(found[2]), found[3]
        if rest.startswith("conv_out."):
            # Every residual block has this convolution, but uses it only if the width changes.
            weight = shapes.get(f"{side}.blocks.{number}.conv_out.weight", ())
            if weight[0:1] == weight[1:2]:
                continue
            rest = rest.replace("conv_out.", "nin_shortcut.")
        ours = "encoder" if side == "encoder" else "decoder"
        renamed[name] = f"{ours}.{places[side].get(number, '?')}.{rest}"
    return renamed


def _places(shapes: Shapes, side: str) -> dict[int, str]:
    """The place in our nested layout of each block in the flat list of `side`."""
    kinds: dict[int, str] = {}
    for name in shapes:
        found = re.match(rf"{side}\.blocks\.(\d+)\.(norm1|q|conv|)\.?weight$", name)
        if found:
            kinds[int(found[1])] = found[2]
    order = [kinds[number] for number in sorted(kinds)]
    first = 1 if side == "generator" else len(order) - 5
    whole = sorted(kinds) == list(range(len(order))) and len(order) > 6
    if not whole or order[first : first + 3] != ["norm1", "q", "norm1"] or any(order[n] for n in (0, -2, -1)):
        raise DataError(f"the blocks of its {side} are not in the order of unleashing-transformers: download it again")
    places = {0: "conv_in", len(order) - 2: "norm_out", len(order) - 1: "conv_out"}
    places |= {first: "mid.block_1", first + 1: "mid.attn_1", first + 2: "mid.block_2"}
    way, step, resize = ("down", 1, "downsample") if side == "encoder" else ("up", -1, "upsample")
    level, blocks = 0 if side == "encoder" else order.count("conv"), 0
    for number, kind in enumerate(order):
        if number in places:
            continue
        if kind == "norm1":
            places[number] = f"{way}.{level}.block.{blocks}"
            blocks += 1
        elif kind == "q":
            places[number] = f"{way}.{level}.attn.{blocks - 1}"
        else:
            places[number] = f"{way}.{level}.{resize}"
            level, blocks = level + step, 0
    return places


_SAME = _rules()
LAYOUTS = {
    "llamagen": Layout(
        re.compile(r"encoder\.conv_blocks\."),
        _rules(
            (r"^encoder\.conv_blocks\.(\d+)\.", r"encoder.down.\1."),
            (r"^decoder\.conv_blocks\.(\d+)\.", r"decoder.up.-\1."),
            (r"\.res\.(\d+)\.", r".block.\1."),
            (r"\.mid\.0\.", ".mid.block_1."),
            (r"\.mid\.1\.", ".mid.attn_1."),
            (r"\.mid\.2\.", ".mid.block_2."),
        ),
        Variant(unit_codes=True),
        own_pixels=True,
        unsaid=("unit_codes",),
    ),
    "unleashing": Layout(
        re.compile(r"encoder\.blocks\."),
        _flat,
        Variant(swish_out=False, unit_pixels=True),
        own_pixels=True,
        unsaid=(),
    ),
    "maskgit": Layout(
        re.compile(r"encoder\.mid\.\d"),
        _rules(
            *((rf"\.mid\.{number}\.", f".mid.block_{number + 1}.") for number in range(10)),
            (r"\.upsample_conv\.", ".upsample.conv."),
        ),
        Variant(unit_pixels=True),
        own_pixels=True,
        unused=frozenset({"attn_resolutions"}),
        unsaid=(),
    ),
    "diffusers": Layout(
        re.compile(r"encoder\.down_blocks\."),
        _rules(
            (r"\.down_blocks\.(\d+)\.", r".down.\1."),
            (r"\.up_blocks\.(\d+)\.", r".up.-\1."),
            (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
            (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
            (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
            (r"\.resnets\.(\d+)\.", r".block.\1."),
            (r"\.attentions\.(\d+)\.", r".attn.\1."),
            (r"\.(down|up)samplers\.0\.", r".\1sample."),
            (r"\.conv_shortcut\.", ".nin_shortcut."),
            (r"\.conv_norm_out\.", ".norm_out."),
            (r"\.group_norm\.", ".norm."),
            (r"\.(to_q|query)\.", ".q."),
            (r"\.(to_k|key)\.", ".k."),
            (r"\.(to_v|value)\.", ".v."),
            (r"\.(to_out\.0|proj_attn)\.", ".proj_out."),
        ),
        unsaid=("pixel_range", "groups"),
    ),
    "taming": Layout(re.compile(r"encoder\.down\.0\.block\."), _SAME),
    "ldm": Layout(re.compile(r"encoder\.down\.0\.block\."), _SAME),
}
"""In the order in which a file is compared with them: MaskGIT's files match taming's marker as well."""
