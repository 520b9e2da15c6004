"""Pieces of work that the page asks for. Each yields what there is to show: HTML, names of files, arrays of pixels.

Shapes: S pixels a side of the model's images.
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
    """Who has asked: whether they have stopped it, and whom to tell that so many of at most so many steps are done."""

    stopped: Callable[[], bool] = lambda: False
    report: Callable[[int, int], None] = lambda done, most: None

    def onlooker(self, model: Generator, most: int = 0) -> Onlooker:
        """For drawing with a model, in `most` predictions: 0 where nobody is told of them."""
        return Onlooker(
            model.method.tokens, self.stopped, lambda done: self.report(min(done, most), most) if most else None
        )


def draw(
    model: Generator, asker: Asker, *, count: int, class_: int | None, how: Mapping[str, Any], columns: int, folder: str
) -> Iterator[dict[str, Any]]:
    """Images as a gallery and as an archive with their cost; then, where it is known, the way to them as a film.

    Of the film, two rows. Files are written to `folder`.
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
    """An image (3, S, S) uint8 to paint over, and it enlarged to `side` pixels or more, (H, W, 3)."""
    classes = drawing.labels(model, class_, 1)
    yield _to_paint_over(drawing.sample(model, classes, asker.onlooker(model), **how).images[0], side)


def open_picture(model: Generator, asker: Asker, *, path: str, side: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same of a file, as the model sees it."""
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
    """What is kept of an image (3, S, S) and `count` results as a gallery; their cost."""
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
    """The rows so far, and a line that says how many."""
    rows, done = comparing.rows(models, chosen, vary, values), []
    for row, drawn in zip(rows, comparing.drawn_rows(rows, class_, count, seed, asker.onlooker), strict=True):
        done.append((row.label, f"{drawn.seconds:.2f} s · {drawn.nfe:g} network calls", drawn.images))
        yield pictures.comparison(done), f"{len(done)} of {len(rows)} rows · seed {seed}"


def near(model: Generator, asker: Asker, *, code: int, table: str, count: int, columns: int) -> Iterator[str]:
    """The codes nearest to one in a table, as a gallery with their distances."""
    order, far = codes.nearest(codes.tables(model)[table], code, count)
    words = [f"{number}: {distance:.2f}" for number, distance in zip(order, far, strict=True)]
    yield pictures.gallery(codes.patches(model, order), words, columns)


def look_inside(model: Generator, asker: Asker, *, training: str | None, folder: str) -> Iterator[dict[str, str]]:
    """Pictures of all codes, of the embeddings and of a training's file, one after the other, in `folder`."""
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
"""By the names under which another process asks for them."""


def _new(folder: str, name: str, ending: str) -> Path:
    return Path(folder) / f"{name}-{secrets.token_hex(8)}.{ending}"


def _to_paint_over(image: Tensor, side: int) -> tuple[np.ndarray, np.ndarray]:
    return image.numpy(), np.asarray(pictures.enlarged(image, side))
