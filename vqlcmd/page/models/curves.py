"""metrics/train.tsv as a picture: losses, their terms, cross-entropies and embeddings over the steps of a training."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from vqlcmd.runtime.errors import DataError

Curves = Mapping[str, Sequence[float]]


def read(path: Path) -> dict[str, list[float]]:
    """The columns of a .tsv of numbers, by name. Raises DataError if the file is not one."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", strict=True))
        return {name: [float(row[name]) for row in rows] for name in (rows[0] if rows else ())}
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is no table of numbers: `dvc repro` makes it ({error})") from None


def panels(names: Sequence[str], terms: Sequence[str]) -> dict[str, list[str]]:
    """{title: the columns in a panel}, of those that exist; `terms` are the names of the method's loss terms."""
    rest = [name for name in names if name != "step"]
    wanted = {
        "loss": [name for name in rest if name in ("loss", "heldout_loss")],
        "its terms, unweighted": [name for name in rest if name in terms],
        "cross-entropy at shares of the way to noise": [name for name in rest if name.startswith("ce_")],
        "embeddings": [name for name in rest if name.startswith("embedding_")],
        "codes that are found again in noise, at log SNR": [name for name in rest if name.startswith("decodable_")],
        "gradient norm": [name for name in rest if name == "grad_norm"],
    }
    return {title: columns for title, columns in wanted.items() if columns}


def draw(curves: Curves, terms: Sequence[str], path: Path) -> Path:
    """Writes a PNG with the panels; returns the path."""
    from matplotlib.figure import Figure

    shown = panels(list(curves), terms)
    columns = 3
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.1 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes:
        axis.set_visible(False)
    for axis, (title, names) in zip(figure.axes, shown.items(), strict=False):
        axis.set_visible(True)
        for name in names:
            # Only the number in names such as ce_0.5 and decodable_-2.
            axis.plot(curves["step"], curves[name], label=name.removeprefix("ce_").removeprefix("decodable_"))
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=110)
    return path
