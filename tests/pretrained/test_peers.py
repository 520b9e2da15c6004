"""Tokens and pixels beside the authors' own code: taming-transformers' VQModel and GumbelVQ, and diffusers' VQModel.

Random weights, with norms and biases away from their initial ones, in files as these packages write them. Needs the
optional group `peers` (`pip install -e .[peers]`); `python -m tests.pretrained.test_peers` prints the table of
docs/tokenizers.md.
"""

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from benchmarks.peers.tokenizer import taming_models
from tests.factory import normal
from vqlcmd.pretrained import convert
from vqlcmd.torchvision_guard import guard_torchvision

PACKAGES = ("taming", "diffusers", "einops")
MISSING = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"the optional group `peers` is not installed: no {', '.join(MISSING)}"),
    pytest.mark.filterwarnings("ignore"),
]
SIZE, IMAGES = 64, 8
PIXELS = 1e-4
"""By how much pixels may differ: sums of some thousand products in float32, in another order."""
SHARE = 0.998
"""Of tokens that are equal, at least: two codes may be nearest to within rounding."""
DDCONFIG: dict[str, Any] = {
    "double_z": False,
    "z_channels": 16,
    "resolution": SIZE,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 2, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [16],
    "dropout": 0.0,
}


class Agreement(NamedTuple):
    """What came out of one comparison."""

    tokens: int
    equal: float
    """The share of tokens that are the same."""
    pixels: float
    """The largest difference of a pixel, in the network's own range, of the authors' tokens decoded by both."""


def diffusers() -> Any:
    guard_torchvision()
    return importlib.import_module("diffusers")


@torch.no_grad()
def moved(model: nn.Module, seed: int = 0) -> Any:
    """Norms' scales and all biases away from 1 and 0, and a codebook of some of the model's own latents."""
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter += 0.3 * torch.randn(parameter.shape, generator=random)
    return model.eval()


@torch.no_grad()
def with_codes(codebook: Tensor, latents_BDHW: Tensor, seed: int = 0) -> None:
    """Codes around the latents of noise, so that images meet many of them."""
    rows = latents_BDHW.permute(0, 2, 3, 1).flatten(0, 2)
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(codebook.shape, generator=random)
    codebook.copy_(rows[torch.randint(len(rows), (len(codebook),), generator=random)] + noise * rows.std(dim=0))


@torch.no_grad()
def compared(path: Path, images: Tensor, tokens: Tensor, paint: Callable[[Tensor], Tensor], unit: bool) -> Agreement:
    """`images` from -1 to 1 and the authors' `tokens` of them (B, N), below 0 where they are random.

    `paint` gives the authors' pixels of tokens, from 0 to 1 where `unit`.
    """
    found, _ = convert.read(path)
    ours, certain = found.encode(images), tokens >= 0
    assert len(tokens.unique()) > len(found.codebook) / 8, "a comparison of tokens needs different ones"
    theirs, decoded = paint(tokens.clamp(min=0)), found.decode_latents(found.quantize.lookup(tokens.clamp(min=0)))
    decoded = (decoded + 1) / 2 if unit else decoded
    equal = (ours == tokens)[certain].double().mean().item()
    return Agreement(int(certain.sum()), equal, (theirs - decoded).abs().max().item())


def pictures() -> Tensor:
    """Smooth pictures from -1 to 1, as photographs are more than noise is."""
    coarse = normal(IMAGES, 3, SIZE // 8, SIZE // 8, seed=5)
    fine = 0.2 * normal(IMAGES, 3, SIZE, SIZE, seed=6)
    smooth = nn.functional.interpolate(coarse, SIZE, mode="bicubic")
    return (0.6 * smooth + fine).clamp(-1, 1)


@torch.no_grad()
def of_taming(folder: Path, codes: int, gumbel: bool = False, used: int | None = None) -> Agreement:
    """VQModel or GumbelVQ as `last.ckpt` with `model.yaml`.

    Two things are random there, so that the choice before them is compared: GumbelVQ adds noise to its logits, and
    VQModel draws anything for a latent whose nearest code is not in use.
    """
    torch.manual_seed(0)
    module, more = taming_models(), {}
    params = {"embed_dim": 16, "n_embed": codes, "ddconfig": DDCONFIG, "lossconfig": {"target": "none"}}
    if used is not None:
        chosen = torch.randperm(codes)[:used]
        more = {"remap": str(folder / "used.npy")}
        np.save(folder / "used.npy", chosen.numpy())
    if gumbel:
        more |= {"temperature_scheduler_config": {"target": "none"}}
    model = moved((module.GumbelVQ if gumbel else module.VQModel)(**params, **more))
    images = pictures()
    table = model.quantize.embed.weight if gumbel else model.quantize.embedding.weight
    latents = model.quant_conv(model.encoder(normal(8, 3, SIZE, SIZE, seed=2)))
    with_codes(table, latents)
    if gumbel:  # No code is ahead of the others for the average latent.
        mean = model.quantize.proj(latents).mean(dim=(0, 2, 3))
        model.quantize.proj.bias -= mean
    torch.save({"state_dict": model.state_dict(), "global_step": 1}, folder / "last.ckpt")
    config = {"model": {"target": "taming.models.vqgan.VQModel", "params": params}}
    (folder / "model.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    if gumbel:
        latents = model.encode_to_prequant(images)
        tokens = model.quantize(latents, return_logits=True)[3].argmax(dim=1).reshape(IMAGES, -1)
    else:
        model.quantize.unknown_index = -1
        tokens = model.encode(images)[2][2].reshape(IMAGES, -1)
    side = DDCONFIG["resolution"] // 8

    def paint(tokens: Tensor) -> Tensor:
        entry = model.quantize.get_codebook_entry(tokens.reshape(-1), (IMAGES, side, side, 16))
        return model.decode(entry)

    return compared(folder / "last.ckpt", images, tokens, paint, unit=False)


@torch.no_grad()
def of_diffusers(folder: Path, amused: bool = False, file: str = "safetensors") -> Agreement:
    """VQModel by its own `save_pretrained`; aMUSEd's have no attention and pixels from 0 to 1."""
    torch.manual_seed(0)
    kinds = ("", "") if amused else ("", "Attn")
    model = diffusers().VQModel(
        block_out_channels=(32, 32, 64),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D", f"{kinds[1]}DownEncoderBlock2D"),
        up_block_types=(f"{kinds[1]}UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
        layers_per_block=2,
        latent_channels=8,
        vq_embed_dim=12,
        num_vq_embeddings=300,
        norm_num_groups=16,
        sample_size=SIZE,
        mid_block_add_attention=not amused,
        lookup_from_codebook=amused,
    )
    moved(model)
    images = pictures()
    given = (images + 1) / 2 if amused else images
    with_codes(model.quantize.embedding.weight, model.encode(normal(8, 3, SIZE, SIZE, seed=2)).latents)
    model.save_pretrained(folder, safe_serialization=file == "safetensors")
    tokens = model.quantize(model.encode(given).latents)[2][2].reshape(IMAGES, -1)
    side = SIZE // 4

    def paint(tokens: Tensor) -> Tensor:
        shape = (IMAGES, side, side, 12)
        given = tokens.flatten() if amused else model.quantize.get_codebook_entry(tokens.flatten(), shape)
        return model.decode(given, force_not_quantize=True, shape=shape).sample

    return compared(folder, images, tokens, paint, unit=amused)


CASES: dict[str, Callable[[Path], Agreement]] = {
    "taming VQModel, 1,024 codes": lambda folder: of_taming(folder, 1024),
    "taming VQModel, 300 of 1,024 codes in use": lambda folder: of_taming(folder, 1024, used=300),
    "taming GumbelVQ, 512 codes": lambda folder: of_taming(folder, 512, gumbel=True),
    "taming GumbelVQ, 200 of 512 codes in use": lambda folder: of_taming(folder, 512, gumbel=True, used=200),
    "diffusers VQModel": of_diffusers,
    "diffusers VQModel, pickled": lambda folder: of_diffusers(folder, file="bin"),
    "diffusers VQModel as aMUSEd's": lambda folder: of_diffusers(folder, amused=True),
}


@pytest.mark.parametrize("name", CASES)
def test_tokens_and_pixels_are_those_of_the_authors_code(name: str, tmp_path: Path) -> None:
    found = CASES[name](tmp_path)
    assert found.equal >= SHARE, found
    assert found.pixels < PIXELS, found


if __name__ == "__main__":
    torch.set_num_threads(1)
    for title, run in CASES.items():
        with tempfile.TemporaryDirectory() as place:
            measured = run(Path(place))
        print(f"| {title} | {measured.tokens:,} | {100 * measured.equal:.2f}% | {measured.pixels:.1g} |")
