"""Writes images of a model, or the pipeline's samples, to image files; texts to a file with a line for each."""

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import vqlcmd
from vqlcmd import figures, generator
from vqlcmd import tokenizer as tokenizers
from vqlcmd.cli.checkout import require_checkout
from vqlcmd.experiments import table, views
from vqlcmd.generator import Generator
from vqlcmd.images.crops import crop_views
from vqlcmd.images.rgb import read_picture
from vqlcmd.methods import load_method
from vqlcmd.pretrained import hub
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.artefacts.write_errors import writing
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import atomic_write
from vqlcmd.text import vocabulary
from vqlcmd.text_generator import TextGenerator
from vqlcmd.tokenizer.pixels import to_uint8
from vqlcmd.tokens import shards
from vqlcmd.tokens.header import grid_of
from vqlcmd.unfinished import load_state

LONGEST_PART = 200
"""The most bytes of a class name in a file name, which has at most 255 bytes on common disks."""

SHOWN = ("step", "embedding_norm", "embedding_distance", "embedding_rank", "decodable_0")
"""Columns of train.tsv in the picture of embeddings."""


def decode_samples(
    place: str | Path, samples_folder: Path | None, out: Path, count: int | None, batch_size: int | None
) -> None:
    """Decodes samples with the tokenizer in `place` and writes them to `out`: NUMBER-CLASS.png files, or one .npz."""
    check_folder(out)
    folder = hub.local(place)
    samples_folder = samples_folder or folder / "samples"
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


def sample_images(
    folder: str | Path, out: Path, class_: str | None, count: int, *, state: str | None = None, **how: Any
) -> None:
    """Draws `count` images of one class into `out`; without `class_`, of all in turn. `how` is as in Generator.sample.

    `state` names an unfinished training to sample from, instead of the model in `folder`.
    """
    check_folder(out)
    model = _load(folder, state)
    names = model.class_names
    if class_ is not None and not names:
        raise ConfigError(f"--class {class_}: this model has no classes; leave the option out")
    chosen = None if class_ is None else model.class_number(_class(class_, model))
    labels = [number % len(names) if chosen is None else chosen for number in range(count)] if names else None
    write_images(model.sample(count if labels is None else labels, **how), labels, names, out)


def inpaint_image(
    folder: str | Path, image: Path, mask: Path, out: Path, class_: str | None, count: int, **how: Any
) -> None:
    """Draws one picture: `image` as the model sees it, the kept part of it, and `count` results.

    In the mask, white is a hole; black and transparent parts are kept. `how` is as in Generator.inpaint.
    """
    check_picture(out)
    model = vqlcmd.load(str(folder))
    recipe = generator.recipe(model.about)
    picture, holes = read_picture(image, recipe.background), read_picture(mask, "black")
    if picture.size != holes.size:
        raise ConfigError(
            f"{mask} has {_sides(holes)} pixels and {image} {_sides(picture)}, both upright:"
            " make the mask as large as the image"
        )
    pixels, hole = (torch.from_numpy(crop_views(each, recipe, 0)[0]) for each in (picture, holes))
    chosen = None if class_ is None else _class(class_, model)
    painted, kept = model.inpaint(pixels, hole.float().mean(dim=0) > 127, chosen, count, **how)
    figures.image_grid(torch.cat([pixels[None], kept[None], painted]), min(count + 2, 10), out)
    print(f"{out}: the image, what is kept of it, {count} results")


def _class(text: str, model: Generator) -> int | str:
    """What `--class TEXT` means: a class name if the model has a class of that name, else a number if it is one."""
    number = text.isascii() and text.isdigit() and len(text) < 10 and text not in model.class_names
    return int(text) if number else text


def _sides(picture: Image.Image) -> str:
    return f"{picture.width} x {picture.height}"


def draw_gallery(
    folder: str | Path, out: Path, guidance: str | None, rows: int, *, state: str | None = None, **how: Any
) -> None:
    """Draws samples with classes in columns, `rows` rows for each guidance scale, all scales with the same noise."""
    check_picture(out)
    try:
        scales = [float(scale) for scale in guidance.split(",")] if guidance is not None else None
    except ValueError:
        raise ConfigError(f"--guidance {guidance} must be numbers with commas between them, such as 0,1,2") from None
    wrong = [scale for scale in scales or () if not 0 <= scale < math.inf]
    if wrong:
        raise ConfigError(f"--guidance {wrong[0]:g} must be a number from 0")
    model = _load(folder, state)
    scales = scales or [model.about["sampling"]["guidance"]]
    columns = min(len(model.class_names), 20) or 10
    classes = list(range(columns)) * rows if model.class_names else columns * rows
    parts = [model.sample(classes, guidance=scale, **how) for scale in scales]
    figures.image_grid(torch.cat(parts), columns, out)
    print(f"{out}: guidance {', '.join(f'{scale:g}' for scale in scales)}, {rows} rows each")


def draw_collapse(name: str, out: Path, preset: str | None, seed: int) -> None:
    """Draws curves of the embeddings in a table's rows, and distance matrices if their models are in this clone."""
    check_picture(out)
    found = views.curves(name, preset, seed)
    tables, without = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for row, result in found.items():
            try:
                model = views.fetch_model(result["revision"], Path(folder))
                tables[row] = load_method(model, torch.device("cpu"))[0].table
            except DataError as error:
                without[row] = str(error)
    drawn = {
        row: {key: result["curves"][key] for key in SHOWN if key in result["curves"]} for row, result in found.items()
    }
    figures.collapse(drawn, tables, out)
    rows = table.load(name).rows
    print(f"{out}: {len(found)} of {len(rows)} rows of {name}, seed {seed}")
    for row in rows:
        if row not in found:
            print(f"left out: {row}, which has not run with seed {seed}")
        elif row in without:
            print(f"without its distances: {row}, since {without[row]}")


def _load(folder: str | Path, state: str | None) -> Generator:
    if state is None:
        return vqlcmd.load(str(folder))
    model = _unfinished(state)
    if not isinstance(model, Generator):
        raise ConfigError(f"--state {state} is a training on text: `vqlcmd sample --out FILE.txt` draws from it")
    return model


def _unfinished(state: str) -> Generator | TextGenerator:
    require_checkout("sample --state")
    model, step = load_state(state)
    print(f"an unfinished training, at step {step}")
    return model


def draw_curves(names: list[str], columns: list[str], out: Path, preset: str | None) -> None:
    """Draws columns of training, and metrics along snapshots, of the rows of tables."""
    check_picture(out)
    found: dict[str, dict[str, list[views.Line]]] = {}
    for name in names:
        for column, rows in views.series(name, preset).items():
            found.setdefault(column, rows)
    missing = [column for column in columns if column not in found]
    if missing:
        raise ConfigError(f"{', '.join(names)} has no {missing[0]}: choose of {', '.join(found)}")
    figures.lines({column: found[column] for column in columns}, out)
    print(f"{out}: {', '.join(columns)} of {', '.join(names)}")


def write_images(images: torch.Tensor, labels: list[int] | None, names: Any, out: Path) -> None:
    """Writes images (n, 3, S, S) uint8 as PNG files to a folder, or to an .npz.

    The .npz has `arr_0` (n, S, S, 3) and, if there are labels, `arr_1` (classes).
    """
    pixels = images.permute(0, 2, 3, 1).numpy()
    if out.suffix == ".npz":
        arrays = {"arr_0": pixels} | ({} if labels is None else {"arr_1": np.array(labels)})
        with atomic_write(out) as side:
            np.savez(side, **arrays)  # pyright: ignore[reportArgumentType]
    else:
        out.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(pixels):
            ending = "" if labels is None else f"-{_file_part(names[labels[number]])}"
            path = out / f"{number:06}{ending}.png"
            with writing(path):
                Image.fromarray(image).save(path)
    print(f"{len(images)} image{'' if len(images) == 1 else 's'} in {out}")


def _file_part(name: str) -> str:
    """A class name as part of a file name; in somebody else's model it may contain anything."""
    plain = "".join(each if each.isprintable() and each not in "/\\" else "_" for each in name)
    return plain.encode()[:LONGEST_PART].decode(errors="ignore")


def check_folder(out: Path) -> None:
    """Raises ConfigError, before images are made, if `out` is neither a folder nor a file that ends in .npz."""
    if out.suffix == ".npz":
        return
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file: name a folder, or a file that ends in .npz")
    if not out.exists() and out.suffix.lower() in {*Image.registered_extensions(), ".npy", ".zip", ".tar"}:
        raise ConfigError(f"--out {out} ends in {out.suffix}: name a folder for PNG files, or a file that ends in .npz")


def check_picture(out: Path) -> None:
    """Raises ConfigError, before a picture is made, if `out` does not end in .png."""
    if out.suffix.lower() != ".png":
        raise ConfigError(f"{out} does not end in .png, which the picture will be: change its ending")


def decode_text(place: str, samples_folder: Path | None, out: Path, count: int | None) -> None:
    """Writes the samples of the pipeline as text, one line each; line ends in them become escapes."""
    folder = hub.local(place)
    samples_folder = samples_folder or folder / "samples"
    header, file = shards.read_header(samples_folder), folder / paths.VOCABULARY.name
    symbols = vocabulary.load(file)
    belongs.check_belong(belongs.tokenizer(file), belongs.samples(samples_folder, header))
    samples = shards.read_split(samples_folder, "samples").tokens[:count]
    write_lines([symbols.decode(row) for row in samples.numpy()], out)


def sample_text(place: str, out: Path, count: int, *, state: str | None = None, **how: Any) -> None:
    """Draws `count` blocks of text into a file, one line each; `how` is as in TextGenerator.sample.

    `state` names an unfinished training to sample from, instead of the model at `place`.
    """
    model = vqlcmd.load_text(place) if state is None else _unfinished(state)
    if not isinstance(model, TextGenerator):
        raise ConfigError(f"--state {state} is a training on images: name a folder, or a file that ends in .npz")
    write_lines(model.sample(count, **how), out)


def write_lines(texts: list[str], out: Path) -> None:
    """Writes one line for each text; backslashes and line ends become escapes."""
    lines = ["".join(_escaped(each) for each in text) for text in texts]
    with atomic_write(out) as side:
        side.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(texts)} text{'' if len(texts) == 1 else 's'} in {out}")


def _escaped(character: str) -> str:
    ends = character == "\\" or len(f"a{character}b".splitlines()) > 1
    return character.encode("unicode_escape").decode() if ends else character
