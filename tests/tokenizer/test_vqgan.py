"""The tokenizer: weights and arithmetic of taming-transformers, its file, and the fit of a small one."""

import hashlib
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from tests.factory import normal
from tests.tokenizers import SMALL, TINY, seeded
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.tokenizer import vqgan as module
from vqlcmd.tokenizer.blocks import AttnBlock, downsample
from vqlcmd.tokenizer.pixels import to_float, to_uint8
from vqlcmd.tokenizer.vqgan import VQGAN, Architecture, Quantizer, load, save


def parameters(architecture: Architecture) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in VQGAN(architecture).parameters())


def test_a_fresh_codebook_leaves_the_random_state_as_an_embedding_layer_does():
    """A fit is the same one, whether or not the layer makes the numbers itself."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layer = torch.nn.Embedding(16, 4)
        expected = torch.nn.init.uniform_(layer.weight.detach(), -1 / 16, 1 / 16), torch.rand(1)
        torch.manual_seed(3)
        found = Quantizer(16, 4).embedding.weight, torch.rand(1)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
    assert found[0].requires_grad


def test_reading_weights_does_not_import_the_compiler(tmp_path: Path):
    """normal_ on the meta device did, which took a second of every command."""
    save(seeded(TINY), tmp_path / "vqgan.safetensors", {})
    code = (
        "import sys; from pathlib import Path; from vqlcmd.tokenizer.vqgan import load\n"
        "load(Path(sys.argv[1])); assert 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "vqgan.safetensors")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_published_f16_models_have_their_published_sizes():
    """72,141,699 is also what the size of taming's file and the README of Maskgit-pytorch (72.142M) say."""
    assert parameters(Architecture()) == 72_141_699
    assert parameters(Architecture(n_embed=16384)) == 76_073_859


def test_the_latent_diffusion_first_stages_have_their_published_sizes():
    f8 = Architecture(ch_mult=(1, 2, 2, 4), attn_resolutions=(32,), z_channels=4, embed_dim=4, n_embed=16384)
    f4 = Architecture(ch_mult=(1, 2, 4), attn_resolutions=(), z_channels=3, embed_dim=3, n_embed=8192)
    assert round(parameters(f8) / 1e6, 2) == 67.72
    assert round(parameters(f4) / 1e6, 2) == 55.32


def test_the_keys_are_those_of_taming():
    shapes = {key: tuple(value.shape) for key, value in seeded(SMALL).state_dict().items()}
    expected = {
        "encoder.conv_in.weight": (32, 3, 3, 3),
        "encoder.down.0.block.0.conv1.weight": (32, 32, 3, 3),
        "encoder.down.0.downsample.conv.weight": (32, 32, 3, 3),
        "encoder.down.1.block.0.nin_shortcut.weight": (64, 32, 1, 1),
        "encoder.down.1.attn.0.proj_out.weight": (64, 64, 1, 1),
        "encoder.down.2.block.0.norm1.weight": (64,),
        "encoder.mid.attn_1.q.weight": (32, 32, 1, 1),
        "encoder.norm_out.bias": (32,),
        "encoder.conv_out.weight": (24, 32, 3, 3),
        "decoder.conv_in.weight": (32, 24, 3, 3),
        "decoder.mid.block_2.conv2.bias": (32,),
        "decoder.up.0.block.0.nin_shortcut.weight": (32, 64, 1, 1),
        "decoder.up.1.attn.1.norm.weight": (64,),
        "decoder.up.1.upsample.conv.weight": (64, 64, 3, 3),
        "decoder.up.2.block.1.conv1.weight": (32, 32, 3, 3),
        "decoder.conv_out.weight": (3, 32, 3, 3),
        "quantize.embedding.weight": (32, 8),
        "quant_conv.weight": (8, 24, 1, 1),
        "post_quant_conv.weight": (24, 8, 1, 1),
    }
    assert {key: shapes.get(key) for key in expected} == expected
    layers = {re.sub(r"\.(weight|bias)$", "", key) for key in shapes}
    assert len([layer for layer in layers if ".attn." in layer]) == 5 * (1 + 2), "attention only at 8 x 8"
    assert len([layer for layer in layers if "downsample" in layer]) == 2, "the last level keeps its size"
    assert len([layer for layer in layers if "upsample" in layer]) == 2, "the finest level keeps its size"


def test_tokens_and_images_have_the_promised_shapes_and_types():
    vqgan = seeded(SMALL)
    tokens = vqgan.encode(normal(2, 3, 16, 16).clamp(-1, 1))
    images = vqgan.decode(tokens)
    assert (tokens.shape, tokens.dtype) == ((2, 16), torch.int64)
    assert (images.shape, images.dtype) == ((2, 3, 16, 16), torch.float32)
    assert vqgan.latents(images).shape == (2, 8, 4, 4)
    assert vqgan.codebook.shape == (32, 8)


def test_images_larger_than_configured_give_more_tokens():
    tokens = seeded(SMALL).encode(normal(1, 3, 24, 24))
    assert tokens.shape == (1, 36)
    assert seeded(SMALL).decode(tokens).shape == (1, 3, 24, 24)


def test_tokens_run_row_by_row_in_both_directions():
    quantizer = Quantizer(6, 6)
    quantizer.embedding.weight.data = torch.eye(6)
    grid_HW = torch.tensor([[0, 1, 2], [3, 4, 5]])
    z_BDHW = F.one_hot(grid_HW, 6).float().permute(2, 0, 1)[None]
    assert quantizer.nearest(z_BDHW).tolist() == [[0, 1, 2, 3, 4, 5]]
    code_BDHW = quantizer.lookup(torch.tensor([[5, 0, 1, 2]]))
    assert code_BDHW[0].argmax(dim=0).tolist() == [[5, 0], [1, 2]]


def test_the_nearest_code_is_that_of_brute_force(monkeypatch):
    monkeypatch.setattr(module, "SEARCH_ROWS", 7)
    quantizer = Quantizer(50, 8)
    quantizer.embedding.weight.data = normal(50, 8)
    z_BDHW = normal(3, 8, 4, 4, seed=1)
    z_RD = z_BDHW.permute(0, 2, 3, 1).reshape(-1, 8)
    expected = torch.cdist(z_RD.double(), quantizer.embedding.weight.double()).argmin(dim=1)
    assert torch.equal(quantizer.nearest(z_BDHW).flatten(), expected)


def test_of_equally_near_codes_the_first_is_taken():
    quantizer = Quantizer(4, 2)
    quantizer.embedding.weight.data = torch.tensor([[9.0, 9.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    z_BDHW = torch.tensor([[0.0, 5.0], [2.0, 0.0]]).T.reshape(1, 2, 1, 2)
    assert quantizer.nearest(z_BDHW).tolist() == [[1, 1]]


def test_downsampling_pads_on_the_right_and_at_the_bottom_only():
    down = downsample(1).requires_grad_(False)
    kernel = torch.tensor([[[[1.0, 0, 0], [0, 0, 0], [0, 0, 100.0]]]])
    down.load_state_dict({"conv.weight": kernel, "conv.bias": torch.zeros(1)})
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    # Each output is its top left pixel plus 100 times the one two to the right and below, 0 outside.
    assert down(x).tolist() == [[[[0 + 1000, 2], [8, 10]]]]


def test_attention_is_one_head_of_scaled_dot_products_over_all_positions():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = AttnBlock(32).double().requires_grad_(False)
        block.norm.weight.normal_()
        block.norm.bias.normal_()
    x = normal(2, 32, 3, 2, dtype=torch.float64)
    # 32 groups of one channel: each channel is normalised over its own positions.
    h = (x - x.mean(dim=(2, 3), keepdim=True)) / (x.var(dim=(2, 3), correction=0, keepdim=True) + 1e-6).sqrt()
    h = (h * block.norm.weight[:, None, None] + block.norm.bias[:, None, None]).flatten(2)
    expected = x.flatten(2).clone()
    weights = block.state_dict()
    q, k, v = (weights[f"{name}.weight"][:, :, 0, 0] @ h + weights[f"{name}.bias"][:, None] for name in "qkv")
    for b in range(2):
        for i in range(6):
            share = torch.stack([(q[b, :, i] * k[b, :, j]).sum() / math.sqrt(32) for j in range(6)]).exp()
            mixed = (v[b] * (share / share.sum())).sum(dim=1)
            expected[b, :, i] += weights["proj_out.weight"][:, :, 0, 0] @ mixed + weights["proj_out.bias"]
    torch.testing.assert_close(block(x).flatten(2), expected, rtol=1e-10, atol=1e-10)


def test_tokens_do_not_change_under_autocast():
    vqgan = seeded(SMALL)
    images = normal(8, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert vqgan.latents(images).dtype == torch.float32
        tokens = vqgan.encode(images)
    assert torch.equal(tokens, vqgan.encode(images))


def test_decoded_images_are_clamped_and_painted_ones_are_not():
    vqgan = seeded(SMALL)
    vqgan.state_dict()["decoder.conv_out.bias"].copy_(torch.tensor([3.0, -3.0, 0.0]))
    tokens = torch.zeros(1, 16, dtype=torch.int64)
    assert vqgan.decode_latents(vqgan.quantize.lookup(tokens)).abs().max() > 1.5
    images = vqgan.decode(tokens)
    assert (images.min(), images.max()) == (-1, 1)


def test_every_grey_level_survives_the_way_to_float_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    assert (to_float(levels).min(), to_float(levels).max()) == (-1, 1)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert to_uint8(torch.tensor([-2.0, 0.0, 0.0039, 2.0])).tolist() == [0, 128, 128, 255]


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"resolution": 100}, r"^vqgan.resolution is 100: 5 entries in vqgan.ch_mult need a multiple of 16; choose"),
        ({"ch": 48}, r"^vqgan.ch is 48: its 32 norm groups must divide it; choose"),
        ({"n_embed": 65537}, r"^vqgan.n_embed is 65537: .*choose a number from 2 to 65536"),
        ({"n_embed": 1}, r"^vqgan.n_embed is 1: "),
        ({"z_channels": 0}, r"^vqgan.z_channels is 0: "),
        ({"ch_mult": ()}, r"^vqgan.ch_mult is \(\): "),
        ({"ch_mult": (1, 0)}, r"^vqgan.ch_mult is \(1, 0\): "),
        ({"embed_dim": 2.5}, r"^vqgan.embed_dim is 2.5: "),
    ],
)
def test_parts_that_do_not_fit_are_named_in_one_line(change, pattern):
    with pytest.raises(ConfigError, match=pattern) as caught:
        Architecture(**change)
    assert "\n" not in str(caught.value)


def test_lists_from_a_parameter_file_become_tuples():
    architecture = Architecture(ch_mult=[1, 2], attn_resolutions=[])  # pyright: ignore[reportArgumentType]
    assert (architecture.ch_mult, architecture.attn_resolutions, architecture.downsampling, architecture.grid) == (
        (1, 2),
        (),
        2,
        128,
    )


def test_a_saved_vqgan_loads_bit_for_bit_and_frozen(tmp_path):
    vqgan = seeded(SMALL)
    save(vqgan, tmp_path / "a.safetensors", {"source": "here", "sha256": "0"})
    loaded = load(tmp_path / "a.safetensors")
    assert loaded.architecture == SMALL
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert loaded.state_dict().keys() == vqgan.state_dict().keys()
    for key, value in vqgan.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_equal_weights_make_equal_bytes(tmp_path):
    digests = set()
    for attempt in range(4):
        path = tmp_path / f"{attempt}.safetensors"
        vqgan = seeded(TINY)
        if attempt == 3:
            vqgan.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        save(vqgan, path, {"b": 1, "a": 2} if attempt % 2 else {"a": 2, "b": 1})
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save(seeded(TINY), path, {})
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save(seeded(TINY, seed=1), path, {})
    assert path.read_bytes() == before


def test_missing_and_damaged_files_are_named_in_one_line(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(DataError, match="is missing: `dvc repro` makes it"):
        load(path)
    save(seeded(TINY), path, {})
    whole = path.read_bytes()
    foreign = safetensors.torch.save({"x": torch.zeros(1)})
    for damaged in (whole[:-10], whole[:5], b"", foreign, whole.replace(b"embed_dim", b"embed_dum", 1)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.safetensors") as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_weights_in_half_precision_are_their_rounding_in_float32(tmp_path: Path):
    """A published tokenizer can be half as large: it computes in float32 all the same."""
    vqgan, halved = seeded(TINY), tmp_path / "half.safetensors"
    save(vqgan, tmp_path / "vqgan.safetensors", {})
    with safetensors.safe_open(tmp_path / "vqgan.safetensors", "pt") as file:
        tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    half = {name: each.half() if each.is_floating_point() else each for name, each in tensors.items()}
    safetensors.torch.save_file(half, halved, about)
    assert halved.stat().st_size < 0.6 * (tmp_path / "vqgan.safetensors").stat().st_size
    found = load(halved)
    for name, tensor in vqgan.state_dict().items():
        assert found.state_dict()[name].dtype == tensor.dtype
        assert torch.allclose(found.state_dict()[name], tensor, rtol=2**-11, atol=1e-7), name
    assert found.decode(found.encode(normal(2, 3, 16, 16).clamp(-1, 1))).dtype == torch.float32
