"""From a file to a tokenizer: what is inferred, what is refused in one line, and what the stage makes of it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from torch import Tensor

from tests import naive
from tests.checkpoints import refused, tamings
from tests.conftest import prepare, run_stages
from tests.factory import normal, params
from tests.tokenizers import SMALL, TINY, seeded
from vqlcmd.pretrained import convert
from vqlcmd.runtime.errors import ConfigError, DataError, UserError
from vqlcmd.runtime.files import sha256
from vqlcmd.tokenizer import vqgan

UNSAID = {
    "assumed": {
        "pixel_range": "from -1 to 1; with files of aMUSEd or open-muse set vqgan.pixel_range",
        "tanh_out": "none after the last convolution",
    }
}


def test_without_a_configuration_everything_is_inferred(tmp_path: Path) -> None:
    found, provenance = convert.read(tamings(tmp_path))
    assert provenance["config"] is None
    assert found.architecture.resolution == 256
    assert found.architecture.attn_resolutions == (128,), "the level that has weights for it"
    images = normal(2, 3, 16, 16).clamp(-1, 1)
    assert torch.equal(found.encode(images), seeded(SMALL).encode(images))


def _without(*names: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda held: {name: tensor for name, tensor in held.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "pieces"),
    [
        (_without("encoder.conv_in.weight"), ["encoder.conv_in.weight is missing"]),
        (_without("decoder.up.1.upsample.conv.bias"), ["missing: decoder.up.1.upsample.conv.bias: download"]),
        (_without("encoder.mid.attn_1.q.weight"), ["missing: encoder.mid.attn_1.q.weight"]),
        (_without("encoder.mid.block_2.conv1.bias"), ["missing: encoder.mid.block_2.conv1.bias"]),
        (_without("post_quant_conv.bias", "encoder.norm_out.bias"), ["encoder.norm_out.bias, post_quant_conv.bias"]),
        (_without("quant_conv.weight"), ["z_channels 24 and vqgan.embed_dim 8"]),
        (lambda held: {**held, "encoder.extra.weight": torch.zeros(1)}, ["unexpected: encoder.extra.weight"]),
        (lambda held: {**held, "adapter.weight": torch.zeros(1)}, ["unexpected: adapter.weight"]),
        (lambda held: {**held, **{f"encoder.x.{n}": torch.zeros(1) for n in range(9)}}, ["x.2 and 6 more"]),
        (
            lambda held: {**held, "decoder.conv_in.weight": torch.zeros(32, 23, 3, 3)},
            ["decoder.conv_in.weight is (32, 23, 3, 3) instead of (32, 24, 3, 3)"],
        ),
        (lambda held: {**held, "quant_conv.bias": torch.full((8,), torch.nan)}, ["not finite, in quant_conv.bias"]),
        (
            lambda held: {**held, "encoder.conv_in.weight": torch.zeros(40, 3, 3, 3)},
            ["no multiples of the first one, 40"],
        ),
        (_without("quantize.embedding.weight"), ["an autoencoder without a codebook"]),
        (lambda held: {"quantize.embed.weight": torch.zeros(3, 3)}, ["such as quantize.embed.weight: name a VQGAN"]),
        (lambda held: {"bert.encoder.weight": torch.zeros(3)}, ["such as bert.encoder.weight: name a VQGAN"]),
        (
            lambda held: {"quantize.embedding.weight": torch.zeros(4, 4), "encoder.patch.weight": torch.zeros(3)},
            ["encoder.patch.weight, quantize.embedding.weight are of no known layout"],
        ),
        (lambda held: held | {f"module.{name}": tensor for name, tensor in held.items()}, ["'' and 'module.'"]),
    ],
)
def test_what_does_not_hold_together_is_named_in_one_line(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], pieces: list[str]
) -> None:
    path = tamings(tmp_path, change(dict(seeded(SMALL).state_dict())))
    refused(UserError, path, *pieces)


def test_a_broken_list_of_blocks_is_named_in_one_line(tmp_path: Path) -> None:
    held = naive.Unleashing().w.held
    for gone in ("encoder.blocks.5.q.weight", "encoder.blocks.12.q.weight", "generator.blocks.14.weight"):
        torch.save({name: tensor for name, tensor in held.items() if name != gone}, tmp_path / "vqgan.th")
        refused(DataError, tmp_path / "vqgan.th", f"the blocks of its {gone.split('.')[0]} are not in the order")
    held["encoder.blocks.4.norm1.bias"] = held.pop("encoder.blocks.4.norm2.bias")
    torch.save(held, tmp_path / "vqgan.th")
    refused(DataError, tmp_path / "vqgan.th", "missing: encoder.down.1.block.0.norm2.bias")


@pytest.mark.parametrize("kind", ["llamagen", "unleashing", "maskgit", "diffusers", "own"])
def test_a_format_that_is_not_the_files_is_refused(tmp_path: Path, kind: str) -> None:
    refused(ConfigError, tamings(tmp_path), f"vqgan.format is {kind}", "set it to auto", kind=kind)


def test_files_of_the_project_itself_are_read_whoever_made_them(tmp_path: Path) -> None:
    path = tmp_path / "vqgan.safetensors"
    vqgan.save(seeded(TINY), path, {"dataset": "cats"})
    for kind in ("auto", "own"):
        found, provenance = convert.read(path, kind)
        assert found.architecture == TINY
        assert (provenance["format"], provenance["origin"]) == ("own", {"dataset": "cats"})
    refused(ConfigError, path, "vqgan.format is taming", "this project wrote", kind="taming")
    path.write_bytes(path.read_bytes()[:-4])
    refused(DataError, path, "is no whole tokenizer of this project")


def test_a_digest_that_differs_is_named(tmp_path: Path) -> None:
    path = tamings(tmp_path)
    found, provenance = convert.read(path, digest=sha256(path))
    assert found.architecture.n_embed == 32
    assert provenance == {"file": "last.ckpt", "sha256": sha256(path), "config": None, "format": "taming", **UNSAID}
    refused(DataError, path, f"has SHA-256 {sha256(path)}, but vqgan.sha256 is {'0' * 64}", digest="0" * 64)


def test_places_without_a_checkpoint_are_named(tmp_path: Path) -> None:
    refused(ConfigError, tmp_path / "none.ckpt", "is not a file: name one, or null")
    (tmp_path / "folder").mkdir()
    refused(ConfigError, tmp_path / "folder", "without vqgan.safetensors or diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize(
    "change",
    [{"sha256": "abc"}, {"sha256": "g" * 64}, {"format": "vqvae"}, {"config": 3}],
)
def test_parameters_of_a_checkpoint_are_checked(change: dict[str, Any]) -> None:
    assert params(vqgan={"sha256": "A" * 64}).vqgan.sha256 == "a" * 64
    with pytest.raises(ValueError, match=next(iter(change))):
        params(vqgan=change)


def stage(folder: Path, **changes: Any) -> None:
    run_stages(prepare(folder, {"vqgan": changes}), "vqgan")


def test_the_stage_takes_a_published_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tamings(tmp_path)
    stage(tmp_path / "run", checkpoint=str(path))
    made = tmp_path / "run" / "data" / "vqgan.safetensors"
    with safetensors.safe_open(made, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    told = {"file": "last.ckpt", "sha256": sha256(path), "config": None, "format": "taming", **UNSAID}
    settings = about["provenance"].pop("settings")
    assert about["provenance"] == told
    assert settings["checkpoint"].startswith("last.ckpt (")
    assert str(tmp_path) not in json.dumps(about)
    said = capsys.readouterr().out
    assert "last.ckpt as taming, 4 x 4 tokens of 32 codes" in said
    assert f"set vqgan.sha256: {sha256(path)}" in said


def test_the_stage_refuses_sizes_and_channels_that_do_not_fit(tmp_path: Path) -> None:
    wide = dataclasses.replace(TINY, resolution=32, ch_mult=(1, 1, 1, 1, 1, 1))
    path = tamings(tmp_path, seeded(wide).state_dict())
    with pytest.raises(ConfigError, match=r"images.size 16 must be a multiple of 32, which .*last.ckpt divides by"):
        stage(tmp_path / "a", checkpoint=str(path))
    path = tamings(tmp_path, seeded(dataclasses.replace(TINY, in_channels=1)).state_dict())
    with pytest.raises(ConfigError, match=r"last.ckpt is for 1 channels, images have 3"):
        stage(tmp_path / "b", checkpoint=str(path))
    assert not (tmp_path / "b" / "data" / "vqgan.safetensors").exists()


def test_a_file_that_an_experiments_copy_lacks_is_said_to_be_looked_for_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that Git ignores "is not a file", though the user sees it."""
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for options in ({}, {"config": Path("model.yaml")}):
        path = Path("last.ckpt") if not options else tamings(tmp_path)
        with pytest.raises(
            ConfigError, match=r"this run is an experiment in a copy of .*, or give the file's full path"
        ):
            convert.read(path, **options)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r"or null to fit a tokenizer$"):
        convert.read(tmp_path / "none.ckpt")


@pytest.mark.parametrize("sizes", [(32, 2**62), (2**61, 3, 3, 3)])
def test_sizes_beyond_all_measure_are_one_line(
    tmp_path: Path, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file says what sizes its tensors have; building such a network for comparison was a traceback of PyTorch."""
    path = tamings(tmp_path)
    name = "quantize.embedding.weight" if len(sizes) == 2 else "encoder.conv_out.weight"
    honest = convert.read_tensors

    def lying(place: Path) -> Any:
        found = honest(place)
        return found._replace(shapes=found.shapes | {name: sizes})

    monkeypatch.setattr(convert, "read_tensors", lying)
    refused(DataError, path, "its names and shapes are no tokenizer's")
