"""taming-transformers' f16 tokenizer of 1,024 codes at full size: how long its file takes to load, and what memory.

`python -m tests.pretrained.test_convert_full` prints the numbers of docs/tokenizers.md.
"""

import sys
import tempfile
import types
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.measure import apart, gigabytes, memory, now, peak_memory
from tests.tokenizers import seeded
from vqlcmd.pretrained import convert
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokenizer.blocks import Architecture

CONFIG = """model:
  base_learning_rate: 4.5e-06
  target: taming.models.vqgan.VQModel
  params:
    embed_dim: 256
    n_embed: 1024
    ddconfig: {double_z: false, z_channels: 256, resolution: 256, in_channels: 3, out_ch: 3, ch: 128,
      ch_mult: [1, 1, 2, 2, 4], num_res_blocks: 2, attn_resolutions: [16], dropout: 0.0}
    lossconfig: {target: taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator, params: {disc_weight: 0.8}}
"""
PUBLISHED_BYTES = 957_954_257
"""Of the published file, as a user gives it: number 38 of the issues of taming-transformers."""
SECONDS, BYTES = 10.0, 1_500_000_000


def build(folder: str) -> dict[str, float]:
    """Write `folder`/ckpts/last.ckpt as Lightning does, with random weights, and the configuration in configs/."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    module: Any = types.ModuleType(name)
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": name})
    sys.modules |= dict.fromkeys(("pytorch_lightning", "pytorch_lightning.callbacks", name), module)
    weights, judge = seeded(Architecture()).state_dict(), dict(_discriminator())
    content = {
        "epoch": 11,
        "global_step": 1_000_000,
        "pytorch-lightning_version": "1.0.8",
        "callbacks": {module.ModelCheckpoint: {"best_model_score": torch.tensor(0.5), "best_model_path": "/logs/a"}},
        "optimizer_states": [_adam(weights), _adam(judge)],
        "lr_schedulers": [],
        "state_dict": {**weights, **dict(_lpips()), **judge},
    }
    path = Path(folder) / "ckpts" / "last.ckpt"
    path.parent.mkdir()
    torch.save(content, path)
    (Path(folder) / "configs").mkdir()
    (Path(folder) / "configs" / "model.yaml").write_text(CONFIG, encoding="utf-8")
    return {"bytes": path.stat().st_size}


def _adam(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Of a discriminator the running statistics too, which have no moments in a real file: little, and not read."""
    state = {n: {"step": 9, "exp_avg": w.clone(), "exp_avg_sq": w.clone()} for n, w in enumerate(weights.values())}
    return {"state": state, "param_groups": [{"lr": 4.5e-6, "betas": (0.5, 0.9), "params": list(state)}]}


def _lpips() -> Iterator[tuple[str, Tensor]]:
    """The VGG16 and the five heads of the perceptual loss, by their names in the file."""
    layers = [(1, 0, 3, 64), (1, 2, 64, 64), (2, 5, 64, 128), (2, 7, 128, 128), (3, 10, 128, 256), (3, 12, 256, 256)]
    layers += [(3, 14, 256, 256), (4, 17, 256, 512)]
    layers += [(part, number, 512, 512) for part, number in ((4, 19), (4, 21), (5, 24), (5, 26), (5, 28))]
    for part, number, width_in, width in layers:
        yield f"loss.perceptual_loss.net.slice{part}.{number}.weight", torch.randn(width, width_in, 3, 3)
        yield f"loss.perceptual_loss.net.slice{part}.{number}.bias", torch.randn(width)
    for number, width in enumerate((64, 128, 256, 512, 512)):
        yield f"loss.perceptual_loss.lin{number}.model.1.weight", torch.rand(1, width, 1, 1)
    for name in ("shift", "scale"):
        yield f"loss.perceptual_loss.scaling_layer.{name}", torch.randn(1, 3, 1, 1)


def _discriminator() -> Iterator[tuple[str, Tensor]]:
    """Five convolutions of 4 x 4, the middle three without a bias and with batch norm."""
    widths = (3, 64, 128, 256, 512, 1)
    for (width_in, width), number in zip(pairwise(widths), (0, 2, 5, 8, 11), strict=True):
        start = f"loss.discriminator.main.{number}"
        yield f"{start}.weight", torch.randn(width, width_in, 4, 4)
        if number in (0, 11):
            yield f"{start}.bias", torch.randn(width)
        else:
            norm = f"loss.discriminator.main.{number + 1}"
            for part in ("weight", "bias", "running_mean", "running_var"):
                yield f"{norm}.{part}", torch.rand(width)
            yield f"{norm}.num_batches_tracked", torch.tensor(7)


def load(folder: str) -> dict[str, float]:
    """Read the file as the stage `vqgan` does, then write the project's own: seconds, and bytes over the start."""
    path, held, start, worked = Path(folder) / "ckpts" / "last.ckpt", memory(), now(), process_time()
    found, provenance = convert.read(path)
    seconds, processor, peak = now() - start, process_time() - worked, peak_memory() - held
    assert (provenance["format"], provenance["config"]["file"]) == ("taming", "model.yaml")
    vqgan.save(found, Path(folder) / "vqgan.safetensors", provenance)
    written = {"written": now() - start, "peak_written": peak_memory() - held}
    expected = seeded(Architecture()).state_dict()
    same = sum(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())
    parameters = sum(parameter.numel() for parameter in found.parameters())
    took = {"seconds": seconds, "processor": processor, "peak": peak}
    return {"parameters": parameters, **took, **written, "different": len(expected) - same}


def measured(folder: Path) -> dict[str, float]:
    return apart(build, str(folder)) | apart(load, str(folder))


@pytest.mark.slow
def test_the_file_of_the_published_size_loads_in_seconds_and_in_little_more_than_the_tokenizers_memory(
    tmp_path: Path,
) -> None:
    found = measured(tmp_path)
    assert found["bytes"] == pytest.approx(PUBLISHED_BYTES, rel=1e-3)
    assert (found["parameters"], found["different"]) == (72_141_699, 0)
    # Of the processor, since a busy machine needs any number of others.
    assert found["processor"] < SECONDS, found
    assert found["peak"] <= found["peak_written"] < BYTES, found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        figures = measured(Path(made))
    print(f"A file of {figures['bytes']:,.0f} bytes with {figures['parameters']:,.0f} parameters of the tokenizer:")
    print(f"read in {figures['seconds']:.1f} s ({figures['processor']:.1f} s of the processor),")
    print(f"{gigabytes(figures['peak'])} of memory at most;")
    print(f"with data/vqgan.safetensors written {figures['written']:.1f} s, {gigabytes(figures['peak_written'])}")
