"""Images to tokens, the stage's own loop, against its two parts alone: decoding pictures, and the encoder."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from PIL import Image

from benchmarks import sizes
from benchmarks.measure import Report, alongside, flags
from stages import tokenize as stage
from vqlcmd.images import loader, manifest
from vqlcmd.runtime import batches, paths
from vqlcmd.runtime.machine import disable_malloc_trim
from vqlcmd.tokenizer import vqgan

WIDTH, HEIGHT = 400, 300
PHOTOGRAPHS: dict[str, Any] = {
    "images": {"size": 256},
    "vqgan": {
        "ch_mult": [1, 1, 2, 2, 4],
        "attn_resolutions": [16],
        "z_channels": 256,
        "embed_dim": 256,
        "n_embed": 1024,
    },
}


def photographs(folder: Path, count: int) -> None:
    """JPEG files of coloured waves and a little noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(count):
        waves = [np.sin(a * x + b * y) for a, b in random.uniform(-0.1, 0.1, (3, 2))]
        pixels = 127 + 90 * np.stack(waves, axis=2) + random.normal(0, 8, (HEIGHT, WIDTH, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=90)


def architecture(size: sizes.Size) -> vqgan.Architecture:
    """That of the parameters."""
    given = size.params.vqgan
    names = ("ch", "ch_mult", "num_res_blocks", "attn_resolutions", "z_channels", "embed_dim", "n_embed")
    return vqgan.Architecture(size.params.images.size, **{name: getattr(given, name) for name in names})


def main(tiny: bool = False) -> dict[str, float]:
    """256-pixel photographs, a VQGAN with 16 x 16 tokens that is a quarter as wide as the published one."""
    disable_malloc_trim()
    batch, repeats = (4, 2) if tiny else (16, 5)
    size = sizes.digits(**({} if tiny else PHOTOGRAPHS), dataset="synthetic", tokenize={"batch_size": batch})
    with tempfile.TemporaryDirectory() as name, chdir(name), mock.patch.dict(os.environ):
        os.environ |= {"VQLCMD_IMAGES": str(Path(name) / "pictures"), "VQLCMD_WORKERS": "0"}
        photographs(Path("pictures/synthetic"), batch * (repeats + 2))
        manifest.write(manifest.scan("synthetic", "pictures/synthetic"), paths.MANIFESTS / "synthetic.json")
        tokenizer = vqgan.VQGAN(architecture(size)).eval().requires_grad_(False)
        vqgan.save(tokenizer, paths.VQGAN, {})
        Path("params.yaml").write_text(yaml.safe_dump(size.params.model_dump(mode="json")), encoding="utf-8")

        pixels = torch.rand(batch, 3, size.params.images.size, size.params.images.size) * 2 - 1
        source = loader.open_images(manifest.read(paths.MANIFESTS / "synthetic.json"), paths.images_root())
        recipe = loader.Recipe(size.params.images.size, size.params.images.resize)
        decoded: Iterator[loader.Batch] = loader.stream(source, recipe, batch_size=batch, broken={})
        works = {"encode": lambda: tokenizer.encode(pixels), "decode": lambda: next(decoded)}
        report = Report("tokenize", "images to tokens against decoding and encoding alone")
        found = alongside(batches, stage.run, works, repeats)
    report.row(
        pictures=f"JPEG {WIDTH} x {HEIGHT} to {size.params.images.size}",
        stage=f"{batch / found.median('loop'):.1f} images/s",
        encoder_alone=f"{batch / found.median('encode'):.1f} images/s",
        decoding_alone=f"{batch / found.median('decode'):.1f} images/s",
        against_the_sum=report.ratio("tokenize", 1 / found.ratio("loop", "encode", "decode"), "≥ 0.9"),
    )
    return report.ratios


if __name__ == "__main__":
    main(**flags("tiny"))
