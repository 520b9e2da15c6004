"""A model, or samples of the pipeline -> image files."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import vqlcmd
from vqlcmd import figures
from vqlcmd import tokenizer as tokenizers
from vqlcmd.experiments import runner
from vqlcmd.images.crops import Recipe, crop_views
from vqlcmd.images.rgb import read_picture
from vqlcmd.methods import load_method
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.artefacts.write_errors import writing
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import atomic_write
from vqlcmd.tokenizer.pixels import to_uint8
from vqlcmd.tokens import shards
from vqlcmd.tokens.header import grid_of


def decode_samples(folder: Path, samples_folder: Path, out: Path, count: int | None, batch_size: int | None) -> None:
    """Decode samples by the tokenizer in `folder` into `out`: NUMBER-CLASS.png files, or one .npz."""
    check_folder(out)
    header, file = shards.read_header(samples_folder), folder / paths.VQGAN.name
    samples, grid = shards.read_split(samples_folder, "samples"), grid_of(header, samples_folder)
    tokenizer = tokenizers.load(file, device())
    belongs.check_belong(belongs.tokenizer(file), belongs.samples(samples_folder, header))
    at_once = batch_size or header.get("sample", {}).get("batch_size", len(samples.tokens))
    images = torch.cat(
        [
            to_uint8(tokenizer.decode(tokens.long().to(device()), grid)).cpu()
            for tokens in samples.tokens[:count].split(at_once)
        ]
    )
    labels = samples.labels[:count].tolist() if header["classes"] else None
    write_images(images, labels, header["classes"], out)


def sample_images(folder: Path, out: Path, class_: int | None, count: int, **how: Any) -> None:
    """Draw `count` images of one class (of all in turn without `class_`) into `out`; `how` as in Generator.sample."""
    check_folder(out)
    model = vqlcmd.load(str(folder))
    names = model.class_names
    if class_ is not None and not names:
        raise ConfigError(f"--class {class_}: this model has no classes; leave the option out")
    labels = [class_ if class_ is not None else number % len(names) for number in range(count)] if names else None
    write_images(model.sample(count if labels is None else labels, **how), labels, names, out)


def inpaint_image(folder: Path, image: Path, mask: Path, out: Path, class_: int | None, count: int, **how: Any) -> None:
    """One picture: `image` as the model sees it, what is kept of it, and `count` results; `how` as for Generator.

    Of the mask, white is a hole; black and what is transparent is kept.
    """
    check_picture(out)
    model = vqlcmd.load(str(folder))
    settings = model.about.get("images", {})
    if "background" not in settings:
        raise DataError(f"the model in {folder} does not say how pictures were prepared: `dvc repro` trains it anew")
    recipe = Recipe.of(**settings).deterministic()
    picture, holes = read_picture(image, recipe.background), read_picture(mask, "black")
    if picture.size != holes.size:
        raise ConfigError(
            f"{mask} has {_sides(holes)} pixels and {image} {_sides(picture)}, both upright:"
            " make the mask as large as the image"
        )
    pixels, hole = (torch.from_numpy(crop_views(each, recipe, 0)[0]) for each in (picture, holes))
    painted, kept = model.inpaint(pixels, hole.float().mean(dim=0) > 127, class_, count, **how)
    figures.image_grid(torch.cat([pixels[None], kept[None], painted]), min(count + 2, 10), out)
    print(f"{out}: the image, what is kept of it, {count} results")


def _sides(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height}"


def draw_gallery(folder: Path, out: Path, guidance: str | None, rows: int, **how: Any) -> None:
    """Samples with classes in columns, `rows` rows for each guidance scale: the same noise at every scale."""
    check_picture(out)
    try:
        scales = [float(scale) for scale in guidance.split(",")] if guidance is not None else None
    except ValueError:
        raise ConfigError(f"--guidance {guidance} must be numbers with commas between them, such as 0,1,2") from None
    wrong = [scale for scale in scales or () if not 0 <= scale < math.inf]
    if wrong:
        raise ConfigError(f"--guidance {wrong[0]:g} must be a number from 0")
    model = vqlcmd.load(str(folder))
    scales = scales or [model.about["sampling"]["guidance"]]
    columns = min(len(model.class_names), 20) or 10
    classes = list(range(columns)) * rows if model.class_names else columns * rows
    parts = [model.sample(classes, guidance=scale, **how) for scale in scales]
    figures.image_grid(torch.cat(parts), columns, out)
    print(f"{out}: guidance {', '.join(f'{scale:g}' for scale in scales)}, {rows} rows each")


def draw_collapse(name: str, out: Path, preset: str | None, seed: int) -> None:
    """Curves and distance matrices of the embeddings in a table's rows."""
    check_picture(out)
    found = runner.curves(name, preset, seed)
    with tempfile.TemporaryDirectory() as folder:
        tables = {}
        for row, result in found.items():
            method, _ = load_method(runner.fetch_model(result["revision"], Path(folder)), torch.device("cpu"))
            tables[row] = method.table
    figures.collapse({row: result["curves"] for row, result in found.items()}, tables, out)
    print(f"{out}: {len(found)} rows of {name}, seed {seed}")


def write_images(images: torch.Tensor, labels: list[int] | None, names: Any, out: Path) -> None:
    """Images (n, 3, S, S) uint8 as PNG files in a folder, or as `arr_0` (n, S, S, 3), `arr_1` (classes) of an .npz."""
    pixels = images.permute(0, 2, 3, 1).numpy()
    if out.suffix == ".npz":
        arrays = {"arr_0": pixels} | ({} if labels is None else {"arr_1": np.array(labels)})
        with atomic_write(out) as side:
            np.savez(side, **arrays)  # pyright: ignore[reportArgumentType]
    else:
        out.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(pixels):
            ending = "" if labels is None else f"-{names[labels[number]]}"
            path = out / f"{number:06}{ending}.png"
            with writing(path):
                Image.fromarray(image).save(path)
    print(f"{len(images)} image{'' if len(images) == 1 else 's'} in {out}")


def check_folder(out: Path) -> None:
    """ConfigError where images cannot go to `out`, a folder or a file that ends in .npz; before they are made."""
    if out.suffix == ".npz":
        return
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: name a folder, or a file that ends in .npz")
    if not out.exists() and out.suffix.lower() in {*Image.registered_extensions(), ".npy", ".zip", ".tar"}:
        raise ConfigError(f"--out {out} ends in {out.suffix}: name a folder for PNG files, or a file that ends in .npz")


def check_picture(out: Path) -> None:
    """ConfigError where a picture would not be what its name says; before it is made."""
    if out.suffix.lower() != ".png":
        raise ConfigError(f"{out} does not end in .png, which the picture will be: change its ending")
