"""What tensors do not show (pixel ranges, a tanh, norms of codes), said by configurations, the file, or nobody."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import naive
from tests.checkpoints import refused, tamings
from tests.conftest import prepare, run_stages
from tests.factory import normal
from tests.tokenizers import SMALL, TINY, seeded
from vqlcmd.pretrained import convert
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokenizer.vqgan import VQGAN

IMAGES = normal(3, 3, 16, 16, seed=9).clamp(-1, 1)
SIZES = {"ch": 32, "ch_mult": [1, 2, 1], "num_res_blocks": 2, "z_channels": 10}
DDCONFIG: dict[str, Any] = {**SIZES, "resolution": 16, "in_channels": 3, "attn_resolutions": [8], "double_z": False}


class Amused(naive.Diffusers):
    """aMUSEd's: diffusers' names, no attention, pixels from 0 to 1."""

    pixels, attend, mid_attention = (0.0, 1.0), (), False


class OpenMuse(naive.Model):
    """open-muse's VQGANModel: taming's names, no attention, pixels from 0 to 1."""

    pixels, attend, mid_attention = (0.0, 1.0), (), False


class Tanh(naive.Model):
    """LDM with `tanh_out`."""

    def decoder(self, z: Tensor) -> Tensor:
        return super().decoder(z).tanh()


AMUSED = {
    "_class_name": "VQModel",
    "block_out_channels": [32, 64, 32],
    "layers_per_block": 2,
    "latent_channels": 10,
    "vq_embed_dim": 6,
    "num_vq_embeddings": 24,
    "norm_num_groups": 32,
    "mid_block_add_attention": False,
    "lookup_from_codebook": True,
}
OPEN_MUSE = {
    "_class_name": "VQGANModel",
    "hidden_channels": 32,
    "channel_mult": [1, 2, 1],
    "num_res_blocks": 2,
    "z_channels": 10,
    "quantized_embed_dim": 6,
    "num_embeddings": 24,
    "resolution": 16,
    "attn_resolutions": [],
    "no_attn_mid_block": True,
}
MASKGIT = {**OPEN_MUSE, "_class_name": "MaskGitVQGAN", "z_channels": 6, "attn_resolutions": [4]}


def write(folder: Path, held: dict[str, Any], config: dict[str, Any] | None = None) -> Path:
    torch.save(held, folder / "last.ckpt")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder / "last.ckpt"


def agree(model: naive.Model, found: VQGAN) -> None:
    tokens = model.tokens(IMAGES)
    assert len(tokens.unique()) > naive.CODES / 3
    assert torch.equal(found.encode(IMAGES), tokens)
    painted = model.decode_latents(model.lookup(tokens))
    torch.testing.assert_close(found.decode_latents(found.quantize.lookup(tokens)), painted, rtol=0, atol=1e-5)


def test_a_folder_of_amused_has_pixels_from_0_to_1(tmp_path: Path) -> None:
    """Read as -1 to 1, of its tokens 3 in 100 were right."""
    model = Amused()
    torch.save(model.w.held, tmp_path / "diffusion_pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(AMUSED))
    found, origin = convert.read(tmp_path)
    agree(model, found)
    assert origin["assumed"] == {}
    assert not convert.read(tmp_path, pixel_range="symmetric")[0].architecture.variant.unit_pixels
    (tmp_path / "config.json").write_text(json.dumps({**AMUSED, "lookup_from_codebook": False}))
    assert not convert.read(tmp_path)[0].architecture.variant.unit_pixels


@pytest.mark.parametrize(("make", "config"), [(OpenMuse, OPEN_MUSE), (naive.MaskGIT, MASKGIT)])
def test_files_of_open_muse_are_read_with_their_configuration(
    tmp_path: Path, make: type[naive.Model], config: dict[str, Any]
) -> None:
    """That of MaskGIT's port lists attention which its network has not, and was refused for it."""
    model = make()
    found, origin = convert.read(write(tmp_path, model.w.held, config))
    agree(model, found)
    assert origin["assumed"] == {}


@pytest.mark.parametrize("make", [Amused, OpenMuse])
def test_a_range_of_pixels_that_nothing_tells_is_asked_for(tmp_path: Path, make: type[naive.Model]) -> None:
    model = make()
    path = write(tmp_path, model.w.held)
    refused(ConfigError, path, "set vqgan.pixel_range")
    agree(model, convert.read(path, pixel_range="unit")[0])
    found, origin = convert.read(path, pixel_range="symmetric")
    assert not found.architecture.variant.unit_pixels
    assert "pixel_range" not in origin["assumed"]


def test_a_family_that_is_named_needs_no_range(tmp_path: Path) -> None:
    model = naive.WithoutAttention()
    path = write(tmp_path, model.w.held)
    agree(model, convert.read(path, "ldm")[0])
    inside = write(tmp_path, {f"first_stage_model.{name}": tensor for name, tensor in model.w.held.items()})
    agree(model, convert.read(inside)[0])


def test_files_of_the_project_know_their_range(tmp_path: Path) -> None:
    vqgan.save(seeded(TINY), tmp_path / "own.safetensors", {})
    convert.read(tmp_path / "own.safetensors", pixel_range="symmetric")
    with pytest.raises(ConfigError, match=r"vqgan.pixel_range is unit, but .*own.safetensors says otherwise"):
        convert.read(tmp_path / "own.safetensors", pixel_range="unit")


def test_a_tanh_after_the_last_convolution_counts_where_it_is_said(tmp_path: Path) -> None:
    """It was ignored, and the pixels were wrong without a word."""
    model = Tanh()
    path = write(tmp_path, model.w.held, {"ddconfig": {**DDCONFIG, "tanh_out": True}})
    found, _ = convert.read(path)
    agree(model, found)
    vqgan.save(found, tmp_path / "own.safetensors", {})
    agree(model, vqgan.load(tmp_path / "own.safetensors"))
    (tmp_path / "config.json").unlink()
    assert "tanh_out" in convert.read(path)[1]["assumed"]


def test_attention_that_is_none_is_none_whatever_resolutions_are_named(tmp_path: Path) -> None:
    model = naive.WithoutAttention()
    path = write(tmp_path, model.w.held, {"ddconfig": {**DDCONFIG, "attn_type": "none"}})
    agree(model, convert.read(path)[0])


@pytest.mark.parametrize(
    "change",
    [
        {"attn_type": "linear"},
        {"use_linear_attn": True},
        {"resamp_with_conv": False},
        {"resample_with_conv": False},
        {"give_pre_end": True},
    ],
)
def test_arithmetic_that_is_not_here_is_refused_by_its_key(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path, naive.Model().w.held, {"ddconfig": {**DDCONFIG, **change}})
    ((key, value),) = change.items()
    with pytest.raises(ConfigError, match=f"{key} is {value!r}, but only"):
        convert.read(path)


@pytest.mark.parametrize("args", [argparse.Namespace(codebook_l2_norm=False, x=[1]), {"codebook_l2_norm": False}])
def test_llamagens_file_is_believed_about_itself(tmp_path: Path, args: Any) -> None:
    model = naive.LlamaGen()
    model.unit = False
    path = write(tmp_path, {"model": model.w.held, "args": args})
    found, origin = convert.read(path)
    agree(model, found)
    assert origin["assumed"] == {}
    (tmp_path / "config.json").write_text(json.dumps({"codebook_l2_norm": True, "z_channels": 10}))
    assert convert.read(path)[0].architecture.variant.unit_codes, "a configuration is set by the user"


def test_what_nobody_said_is_in_the_stages_output_and_in_its_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").mkdir()
    path = write(tmp_path / "file", {"model": naive.LlamaGen().w.held})
    run_stages(prepare(tmp_path / "run", {"vqgan": {"checkpoint": str(path)}}), "vqgan")
    said = "neither tensors nor a configuration tell unit_codes; taken for it: divided by their norm"
    assert said in capsys.readouterr().out
    metrics = json.loads((tmp_path / "run" / "metrics" / "vqgan.json").read_text())
    assert metrics == {"fitted": False, "assumed": {"unit_codes": "divided by their norm (codebook_l2_norm)"}}


@pytest.mark.parametrize("start", ["net.", "vqvae.", "a.b.c."])
def test_a_prefix_that_nobody_listed_is_found(tmp_path: Path, start: str) -> None:
    """The message said that the codebook was missing."""
    held = {f"{start}{name}": tensor for name, tensor in seeded(SMALL).state_dict().items()}
    held |= {f"cond_stage_model.{name}": tensor for name, tensor in seeded(SMALL, 1).state_dict().items()}
    found, _ = convert.read(tamings(tmp_path, held))
    assert torch.equal(found.codebook, seeded(SMALL).codebook)
    held |= {f"other.{name}": tensor for name, tensor in seeded(SMALL, 1).state_dict().items()}
    refused(convert.DataError, tamings(tmp_path, held), f"there are tokenizers under '{min(start, 'other.')}' and ")
    known = held | {f"module.{name}": tensor for name, tensor in seeded(SMALL, 2).state_dict().items()}
    assert torch.equal(convert.read(tamings(tmp_path, known))[0].codebook, seeded(SMALL, 2).codebook)


@pytest.mark.parametrize("place", ["quantize.", "quantize.embedding."])
def test_moving_averages_of_a_quantiser_are_left_aside(tmp_path: Path, place: str) -> None:
    held = dict(seeded(SMALL).state_dict())
    held |= {f"{place}cluster_size": torch.ones(32), f"{place}embed_avg": torch.ones(32, 8)}
    assert torch.equal(convert.read(tamings(tmp_path, held))[0].codebook, seeded(SMALL).codebook)
