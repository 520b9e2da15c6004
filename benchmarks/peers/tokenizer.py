"""Encoding and decoding, with the very weights that taming-transformers and diffusers have written."""

import importlib
import sys
import tempfile
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from benchmarks.measure import Report, interleaved, milliseconds
from vqlcmd.pretrained import convert
from vqlcmd.tokenizer.vqgan import VQGAN
from vqlcmd.torchvision_guard import guard_torchvision

CODES = 1024
SIZES = {True: (32, 32, 2), False: (256, 64, 4)}
"""Pixels a side, channels and images at once."""


def taming_models() -> Any:
    """taming's module of models. Of Lightning and of its own main program it needs one name each."""
    stand_ins = {
        "pytorch_lightning": {"LightningModule": nn.Module},
        "taming.main": {"instantiate_from_config": lambda _: nn.Identity()},
    }
    for name, content in stand_ins.items():
        module: Any = types.ModuleType(name)
        module.__dict__.update(content)
        sys.modules[name] = module
    return importlib.import_module("taming.models.vqgan")


def taming(folder: Path, size: int, channels: int) -> Any:
    """Its VQModel with random weights, written as its trainer does."""
    shape = {
        "double_z": False,
        "z_channels": channels,
        "resolution": size,
        "in_channels": 3,
        "out_ch": 3,
        "ch": channels,
        "ch_mult": [1, 1, 2, 2, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [size // 16],
        "dropout": 0.0,
    }
    params = {"embed_dim": channels, "n_embed": CODES, "ddconfig": shape, "lossconfig": {"target": "none"}}
    model = taming_models().VQModel(**params)
    torch.save({"state_dict": model.state_dict(), "global_step": 1}, folder / "last.ckpt")
    config = {"model": {"target": "taming.models.vqgan.VQModel", "params": params}}
    (folder / "model.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return model.eval()


def diffusers(folder: Path, size: int, channels: int) -> Any:
    """Its VQModel with random weights, by its own `save_pretrained`."""
    guard_torchvision()
    multiples = (1, 1, 2, 2, 4)
    model = importlib.import_module("diffusers").VQModel(
        block_out_channels=tuple(channels * each for each in multiples),
        down_block_types=("DownEncoderBlock2D",) * 4 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
        vq_embed_dim=channels,
        num_vq_embeddings=CODES,
        norm_num_groups=32,
        sample_size=size,
    )
    model.save_pretrained(folder)
    return model.eval()


def taming_decoded(model: Any, tokens_BN: Tensor, side: int, channels: int) -> Tensor:
    """As its sampling scripts do."""
    return model.decode(model.quantize.get_codebook_entry(tokens_BN.flatten(), (len(tokens_BN), side, side, channels)))


def diffusers_decoded(model: Any, tokens_BN: Tensor, side: int, channels: int) -> Tensor:
    """As its pipelines do."""
    shape = (len(tokens_BN), side, side, channels)
    entries = model.quantize.get_codebook_entry(tokens_BN.flatten(), shape)
    return model.decode(entries, force_not_quantize=True).sample


PEERS: dict[str, tuple[Callable[..., Any], Callable[[Any, Tensor], Tensor], Callable[..., Tensor]]] = {
    "taming": (taming, lambda model, images: model.encode(images)[2][2].view(len(images), -1), taming_decoded),
    "diffusers": (
        diffusers,
        lambda model, images: model.quantize(model.encode(images).latents)[2][2].view(len(images), -1),
        diffusers_decoded,
    ),
}
"""How each is written, encodes and decodes."""


@torch.no_grad()
def compare(report: Report, tiny: bool) -> None:
    """Both peers, each with the VQGAN that we read from its file."""
    size, channels, batch = SIZES[tiny]
    side, images = size // 16, torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for name, (make, encode, decode) in PEERS.items():
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            try:
                theirs = make(Path(folder), size, channels)
            except ModuleNotFoundError as error:
                report.say(f"\n{name}: {error.name} is not installed")
                continue
            ours: VQGAN = convert.read(Path(folder) / ("last.ckpt" if name == "taming" else ""))[0]
        tokens = ours.encode(images)
        works = {
            "encode": partial(ours.encode, images),
            "encode there": partial(encode, theirs, images),
            "decode": partial(ours.decode, tokens),
            "decode there": partial(decode, theirs, tokens, side, channels),
        }
        equal = (encode(theirs, images) == tokens).double().mean()
        away = (decode(theirs, tokens, side, channels).clamp(-1, 1) - ours.decode(tokens)).abs().max()
        found = interleaved(works, 1 if tiny else 5)
        for what in ("encode", "decode"):
            report.row(
                tokenizer=f"{what}, {batch} x {size} px, {channels} channels",
                peer=name,
                ours=milliseconds(found.median(what)),
                theirs=milliseconds(found.median(f"{what} there")),
                theirs_over_ours=report.ratio(f"{what}, {name}", found.ratio(f"{what} there", what), "≥ 1"),
                same=f"{equal:.2%} of tokens" if what == "encode" else f"pixels within {away:.1g}",
            )
