"""data/samples or data/model -> image files, and the last run's metrics -> a table on the terminal."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import vqlcmd
from stages import paths
from vqlcmd import shards, vqgan
from vqlcmd.distributed import device
from vqlcmd.errors import ConfigError, DataError
from vqlcmd.files import sha256, whole

PICTURES = {
    "grid.png": "samples, classes in columns",
    "reconstructions.png": "real images above their reconstructions by the VQGAN",
    "embeddings.png": "norms and distances: VQGAN codebook above, learned embeddings below",
    "schedule.png": "the noise schedule",
}


def decode_samples(out: Path, count: int | None, batch_size: int) -> None:
    """Decode data/samples into `out`: NUMBER-CLASS.png files, or one .npz."""
    header = shards.read_header(paths.SAMPLES)
    samples = shards.read_split(paths.SAMPLES, "samples")
    if header["vqgan_digest"] != sha256(paths.VQGAN):
        raise DataError(f"{paths.SAMPLES} belongs to another VQGAN than {paths.VQGAN}: run `dvc repro`")
    tokenizer = vqgan.load(paths.VQGAN, device())
    images = torch.cat(
        [
            vqgan.to_uint8(tokenizer.decode(tokens.long().to(device()))).cpu()
            for tokens in samples.tokens[:count].split(batch_size)
        ]
    )
    labels = samples.labels[:count].tolist() if header["classes"] else None
    write_images(images, labels, header["classes"], out)


def sample_images(
    out: Path, class_: int | None, count: int, *, steps: int, guidance: float, sampler: str, seed: int
) -> None:
    """Draw `count` images of one class (of all in turn without `class_`) into `out`."""
    model = vqlcmd.load("data")
    names = model.class_names
    if class_ is not None and not names:
        raise ConfigError(f"--class {class_}: this model has no classes; leave the option out")
    labels = [class_ if class_ is not None else number % len(names) for number in range(count)] if names else None
    images = model.sample(
        count if labels is None else labels, steps=steps, guidance=guidance, sampler=sampler, seed=seed
    )
    write_images(images, labels, names, out)


def write_images(images: torch.Tensor, labels: list[int] | None, names: Any, out: Path) -> None:
    """Images (n, 3, S, S) uint8 as PNG files in a folder, or as `arr_0` (n, S, S, 3), `arr_1` (classes) of an .npz."""
    pixels = images.permute(0, 2, 3, 1).numpy()
    if out.suffix == ".npz":
        arrays = {"arr_0": pixels} | ({} if labels is None else {"arr_1": np.array(labels)})
        with whole(out) as side:
            np.savez(side, **arrays)  # pyright: ignore[reportArgumentType]
    else:
        if out.exists() and not out.is_dir():
            raise ConfigError(f"--out {out} is a file: name a folder, or a file that ends in .npz")
        out.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(pixels):
            ending = "" if labels is None else f"-{names[labels[number]]}"
            Image.fromarray(image).save(out / f"{number:06}{ending}.png")
    print(f"{len(images)} images in {out}")


def print_report() -> None:
    """The table of the last run's metrics, and the list of its pictures."""
    found, bound = (_metrics(paths.METRICS / name) for name in ("evaluate.json", "bound.json"))
    table = Table(title="Generated images, and the VQGAN's reconstructions as the mark to reach")
    for column in ("metric", "generated", "reconstructed"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name in (key for key in found if key.startswith(("fid", "is_", "precision", "recall", "class_accuracy"))):
        table.add_row(name, _number(found[name]), _number(found["reconstruction"].get(name)))
    table.add_row("repeated_training_tokens", _number(found["repeated_training_tokens"]), "")
    table.add_row(
        "bound, nats per token", f"{_number(bound['nats_per_token'])} ± {_number(bound['standard_error'])}", ""
    )
    table.add_row("network_calls per image", str(found["network_calls"]), "")
    console = Console()
    console.print(table)
    for name, text in PICTURES.items():
        console.print(f"{paths.METRICS / name}  {text}", highlight=False)


def _metrics(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path} is missing: `dvc repro` makes it")
    return json.loads(path.read_text(encoding="utf-8"))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
