"""Several models, or several values of one setting, with the same noise."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vqlcmd.generator import Generator
from vqlcmd.page.models import drawing
from vqlcmd.page.models.drawing import Drawn, Onlooker
from vqlcmd.page.models.settings import varied
from vqlcmd.runtime.errors import ConfigError

MOST_ROWS = 12


@dataclass(frozen=True)
class Row:
    """A row of images: its model, and the settings that differ from the usual ones."""

    label: str
    model: Generator
    how: Mapping[str, Any]


def rows(models: Mapping[str, Generator], chosen: Sequence[str], vary: str | None, values: str) -> list[Row]:
    """A row for each of the chosen models at each value of the setting `vary`; commas separate `values`.

    Raises ConfigError if no model is chosen, there are too many rows, or a model does not accept a value.
    """
    if not chosen:
        raise ConfigError("no model is chosen: choose one or more")
    found = []
    for name in chosen:
        for how in varied(models[name], vary, values):
            words = [name] if len(models) > 1 or not how else []
            words += [f"{key} {f'{value:g}' if isinstance(value, float) else value}" for key, value in how.items()]
            found.append(Row(", ".join(words), models[name], how))
    if len(found) > MOST_ROWS:
        raise ConfigError(f"{len(found)} rows are more than the {MOST_ROWS} that fit: choose fewer models or values")
    return found


def drawn_rows(
    rows: Sequence[Row], class_: str, count: int, seed: int, onlooker: Callable[[Generator], Onlooker]
) -> Iterator[Drawn]:
    """Draws each row in turn, with the same random numbers for image i of every row.

    `class_` is a class's name, or "" for all classes in turn; `onlooker` makes an onlooker for a model. Raises
    ConfigError if a model has no such class.
    """
    for row in rows:
        names = row.model.class_names
        if class_ and class_ not in names:
            raise ConfigError(f"{row.label} has no class {class_}: choose another one")
        classes = drawing.labels(row.model, names.index(class_) if class_ else None, count)
        yield drawing.sample(row.model, classes, onlooker(row.model), seed=seed, **row.how)
