"""Each family of tokenizers, in files with its names, against a second implementation of its arithmetic."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests import naive
from tests.factory import normal
from tests.tokenizers import SMALL, seeded
from vqlcmd.pretrained import convert
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokenizer.blocks import Variant
from vqlcmd.tokenizer.vqgan import VQGAN, Architecture

IMAGES = normal(3, 3, 16, 16, seed=9).clamp(-1, 1)


def lightning(held: dict[str, Tensor]) -> dict[str, Any]:
    extra = {"loss.discriminator.main.0.weight": torch.zeros(2, 3), "colorize": torch.zeros(3, 1, 1, 1)}
    extra |= {"model_ema.decay": torch.tensor(0.9), "loss.logvar": torch.zeros(())}
    return {"epoch": 3, "state_dict": {**held, **extra}, "optimizer_states": [{"state": {0: torch.ones(3)}}]}


def diffusion(held: dict[str, Tensor]) -> dict[str, Any]:
    """A model of images over two tokenizers: its own under first_stage_model, one of conditions beside it."""
    weights = {f"first_stage_model.{name}": tensor for name, tensor in held.items()}
    weights |= {f"cond_stage_model.{name}": tensor + 1 for name, tensor in held.items()}
    weights |= {"model.diffusion_model.out.weight": torch.zeros(3), "model_ema.num_updates": torch.tensor(4)}
    return {"state_dict": weights, "global_step": 7}


def llamagen(held: dict[str, Tensor]) -> dict[str, Any]:
    return {"model": {**held, "quantize.codebook_used": torch.zeros(65536)}, "steps": 5, "optimizer": {}}


def unleashing(held: dict[str, Tensor]) -> dict[str, Any]:
    extra = {"disc.main.0.weight": torch.zeros(2), "perceptual.lin0.model.1.weight": torch.zeros(2)}
    extra |= {"ae.generator.logsigma.0.weight": torch.zeros(3)}
    return {f"ae.{name}": tensor for name, tensor in held.items()} | extra


FAMILIES: dict[str, tuple[type[naive.Model], Callable[[dict[str, Tensor]], dict[str, Any]], str]] = {
    "taming": (naive.Model, lightning, "taming"),
    "taming inside a transformer": (naive.Model, diffusion, "taming"),
    "ldm without attention": (naive.WithoutAttention, diffusion, "ldm"),
    "llamagen": (naive.LlamaGen, llamagen, "llamagen"),
    "unleashing": (naive.Unleashing, unleashing, "unleashing"),
    "maskgit": (naive.MaskGIT, dict, "maskgit"),
    "diffusers": (naive.Diffusers, dict, "diffusers"),
    "diffusers with old names": (naive.OldDiffusers, dict, "diffusers"),
}


@pytest.fixture(params=FAMILIES, scope="module")
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[naive.Model, VQGAN]:
    """A naive model, and what is read of its file."""
    make, wrap, kind = FAMILIES[request.param]
    model = make()
    path = tmp_path_factory.mktemp("family") / "last.ckpt"
    torch.save(wrap(model.w.held), path)
    found, provenance = convert.read(path)
    assert provenance["format"] == ("taming" if kind == "ldm" else kind)
    again, provenance = convert.read(path, kind)
    assert provenance["format"] == kind
    assert again.architecture == found.architecture
    return model, found


def test_the_tokens_are_those_of_a_naive_implementation(pair: tuple[naive.Model, VQGAN]) -> None:
    model, found = pair
    tokens = model.tokens(IMAGES)
    assert len(tokens.unique()) > naive.CODES / 3, "a test of tokens needs different ones"
    assert torch.equal(found.encode(IMAGES), tokens)


def test_the_pixels_are_those_of_a_naive_implementation(pair: tuple[naive.Model, VQGAN]) -> None:
    model, found = pair
    tokens = torch.arange(16 * 2).reshape(2, 16) % naive.CODES
    painted = model.decode_latents(model.lookup(tokens))
    torch.testing.assert_close(found.decode_latents(found.quantize.lookup(tokens)), painted, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.decode(tokens), painted.clamp(-1, 1), rtol=0, atol=1e-5)
    assert painted.abs().median() < 1, "most pixels are not clamped"


def test_what_was_read_survives_the_projects_own_file(pair: tuple[naive.Model, VQGAN], tmp_path: Path) -> None:
    _, found = pair
    vqgan.save(found, tmp_path / "own.safetensors", {})
    loaded = vqgan.load(tmp_path / "own.safetensors")
    assert loaded.architecture == found.architecture
    assert torch.equal(loaded.encode(IMAGES), found.encode(IMAGES))
    tokens = found.encode(IMAGES)
    assert torch.equal(loaded.decode(tokens), found.decode(tokens))


def test_a_tokenizer_in_tamings_layout_comes_back_bit_for_bit(tmp_path: Path) -> None:
    small = seeded(SMALL)
    torch.save({"state_dict": small.state_dict()}, tmp_path / "last.ckpt")
    (tmp_path / "model.yaml").write_text("model: {params: {n_embed: 32, ddconfig: {resolution: 16, ch: 32}}}")
    found, _ = convert.read(tmp_path / "last.ckpt")
    assert found.architecture == SMALL
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    for name, tensor in small.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "first_stage_model.", "module._orig_mod."])
def test_a_prefix_of_every_name_is_stripped(tmp_path: Path, prefix: str) -> None:
    held = {f"{prefix}{name}": tensor for name, tensor in seeded(SMALL).state_dict().items()}
    torch.save(held, tmp_path / "a.pt")
    found, _ = convert.read(tmp_path / "a.pt")
    assert torch.equal(found.codebook, seeded(SMALL).codebook)


def test_a_diffusers_folder_is_read_with_its_configuration(tmp_path: Path) -> None:
    model = naive.Diffusers()
    for name, save in (("safetensors", safetensors.torch.save_file), ("bin", torch.save)):
        folder = tmp_path / name
        folder.mkdir()
        save(model.w.held, folder / f"diffusion_pytorch_model.{name}")
        (folder / "config.json").write_text(
            json.dumps(
                {"_class_name": "VQModel", "block_out_channels": [32, 64, 32], "latent_channels": 10, "act_fn": "silu"}
                | {"layers_per_block": 2, "norm_num_groups": 32, "num_vq_embeddings": 24, "vq_embed_dim": 6}
            )
        )
        found, provenance = convert.read(folder)
        assert torch.equal(found.encode(IMAGES), model.tokens(IMAGES))
        assert provenance["file"] == f"diffusion_pytorch_model.{name}"
        assert provenance["config"]["file"] == "config.json"


def test_llamagens_latents_and_codes_have_norm_1(tmp_path: Path) -> None:
    """Tokens would be the same for latents of any length; mixtures of latents and codes would not."""
    torch.save(llamagen(naive.LlamaGen().w.held), tmp_path / "vq.pt")
    found, _ = convert.read(tmp_path / "vq.pt")
    for vectors, dim in ((found.latents(IMAGES), 1), (found.codebook, 1)):
        torch.testing.assert_close(vectors.norm(dim=dim), torch.ones_like(vectors.norm(dim=dim)))


def test_weights_of_half_precision_become_float32(tmp_path: Path) -> None:
    small = seeded(SMALL)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({name: tensor.to(dtype) for name, tensor in small.state_dict().items()}, tmp_path / "a.pt")
        found, _ = convert.read(tmp_path / "a.pt")
        assert all(tensor.dtype == torch.float32 for tensor in found.state_dict().values())
        assert torch.equal(found.codebook, small.codebook.to(dtype).float())


def test_an_average_of_the_weights_is_preferred(tmp_path: Path) -> None:
    held = naive.LlamaGen().w.held
    average = {name: tensor + 1 for name, tensor in held.items()}
    torch.save({"model": held, "ema": average, "args": datetime.timedelta(1)}, tmp_path / "a.pt")
    found, _ = convert.read(tmp_path / "a.pt")
    assert torch.equal(found.state_dict()["encoder.conv_in.bias"], average["encoder.conv_in.bias"])


@pytest.mark.parametrize(
    ("architecture", "millions"),
    [
        (Architecture(z_channels=8, embed_dim=8, n_embed=16384), 69.59),
        (Architecture(ch_mult=(1, 2, 2, 4), attn_resolutions=(32,), z_channels=4, embed_dim=4, n_embed=256), 67.65),
        (Architecture(embed_dim=8, n_embed=16384, variant=Variant(unit_codes=True)), 71.88),
    ],
)
def test_other_published_models_have_their_published_sizes(architecture: Architecture, millions: float) -> None:
    """LDM's vq-f16 and vq-f8-n256, and LlamaGen's vq_ds16_c2i."""
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in VQGAN(architecture).parameters())
    assert round(count / 1e6, 2) == millions
