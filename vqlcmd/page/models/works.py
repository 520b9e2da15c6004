"""Jobs that the page asks for. Each yields what there is to show: HTML, names of files, arrays of pixels.

Shapes: S x S pixels of the model's images.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqlcmd import figures
from vqlcmd.generator import Generator
from vqlcmd.page.models import codes, comparing, curves, drawing, painting, pictures
from vqlcmd.page.models.drawing import Onlooker
from vqlcmd.tokenizer import codebook_table


@dataclass(frozen=True)
class Asker:
    """Who asked for a job: whether they have stopped it, and how to report (steps done, most steps) to them."""

    stopped: Callable[[], bool] = lambda: False
    report: Callable[[int, int], None] = lambda done, most: None

    def onlooker(self, model: Generator, most: int = 0) -> Onlooker:
        """An onlooker for drawing with a model in `most` predictions; with 0, none are reported."""
        return Onlooker(
            model.method.tokens, self.stopped, lambda done: self.report(min(done, most), most) if most else None
        )


def draw(
    model: Generator, asker: Asker, *, count: int, class_: int | None, how: Mapping[str, Any], columns: int, folder: str
) -> Iterator[dict[str, Any]]:
    """Yields images as a gallery and an archive, with their cost; then, if there are beliefs, a film of those.

    The film shows the images of the first two rows. Files are written to `folder`.
    """
    classes, most = drawing.labels(model, class_, count), drawing.predictions(model, count, **how)
    drawn = drawing.sample(model, classes, asker.onlooker(model, most), **how)
    names = [model.class_names[each] for each in classes] if isinstance(classes, list) else [""] * count
    yield {
        "gallery": pictures.gallery(drawn.images, names, columns),
        "archive": str(pictures.archive(drawn.images, names, _new(folder, "samples", "zip"))),
        "cost": f"{drawn.cost()} · seed {how['seed']}",
        "film_follows": bool(drawn.beliefs),
    }
    if drawn.beliefs:
        film = _new(folder, "trajectory", "webp")
        frames = drawing.frames(model, drawn.first(2 * columns), stopped=asker.stopped)
        yield {"film": str(pictures.animation(frames, columns, film))}


def sample_one(
    model: Generator, asker: Asker, *, class_: int | None, how: Mapping[str, Any], side: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields a sample (3, S, S) uint8 to paint over, and an enlarged version of `side` pixels or more, (H, W, 3)."""
    classes = drawing.labels(model, class_, 1)
    yield _to_paint_over(drawing.sample(model, classes, asker.onlooker(model), **how).images[0], side)


def open_picture(model: Generator, asker: Asker, *, path: str, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the same for the picture in a file, as the model sees it."""
    yield _to_paint_over(painting.prepared(model, Path(path)), side)


def fill_in(
    model: Generator,
    asker: Asker,
    *,
    image: np.ndarray | None,
    layers: Sequence[np.ndarray],
    class_: int | None,
    count: int,
    whole_tokens: bool,
    how: Mapping[str, Any],
    columns: int,
) -> Iterator[tuple[str, str]]:
    """Yields a gallery of the kept part of an image (3, S, S) and `count` results, and their cost."""
    given = None if image is None else torch.from_numpy(image)
    onlooker = asker.onlooker(model)
    drawn, kept = painting.fillings(model, given, layers, class_, count, onlooker, whole_tokens=whole_tokens, **how)
    captions = ["what is kept", *[""] * count]
    yield pictures.gallery(torch.cat([kept[None], drawn.images]), captions, columns), drawn.cost()


def compare(
    models: Mapping[str, Generator],
    asker: Asker,
    *,
    chosen: Sequence[str],
    vary: str | None,
    values: str,
    class_: str,
    count: int,
    seed: int,
) -> Iterator[tuple[str, str]]:
    """Yields the rows so far, and a line that says how many there are."""
    rows, done = comparing.rows(models, chosen, vary, values), []
    for row, drawn in zip(rows, comparing.drawn_rows(rows, class_, count, seed, asker.onlooker), strict=True):
        done.append((row.label, f"{drawn.seconds:.2f} s · {drawn.nfe:g} network calls", drawn.images))
        yield pictures.comparison(done), f"{len(done)} of {len(rows)} rows · seed {seed}"


def near(model: Generator, asker: Asker, *, code: int, table: str, count: int, columns: int) -> Iterator[str]:
    """Yields the codes nearest to one in a table, as a gallery with their distances."""
    order, far = codes.nearest(codes.tables(model)[table], code, count)
    words = [f"{number}: {distance:.2f}" for number, distance in zip(order, far, strict=True)]
    yield pictures.gallery(codes.patches(model, order), words, columns)


def look_inside(model: Generator, asker: Asker, *, training: str | None, folder: str) -> Iterator[dict[str, str]]:
    """Yields pictures of all codes, of the embeddings and of the training's curves, one by one, in `folder`."""
    chart = _new(folder, "codes", "png")
    codes.chart(model).save(chart)
    yield {"chart": str(chart)}
    norms = _new(folder, "embeddings", "png")
    figures.embeddings(codebook_table(model.tokenizer), model.method.table.cpu(), norms)
    yield {"norms": str(norms)}
    if training is not None:
        went = _new(folder, "training", "png")
        yield {"training": str(curves.draw(curves.read(Path(training)), list(model.method.weights), went))}


WORKS: dict[str, Callable[..., Iterator[Any]]] = {
    work.__name__: work for work in (draw, sample_one, open_picture, fill_in, compare, near, look_inside)
}
"""The jobs, by the names under which the page's process asks for them."""


def _new(folder: str, name: str, ending: str) -> Path:
    return Path(folder) / f"{name}-{secrets.token_hex(8)}.{ending}"


def _to_paint_over(image: Tensor, side: int) -> tuple[np.ndarray, np.ndarray]:
    return image.numpy(), np.asarray(pictures.enlarged(image, side))
