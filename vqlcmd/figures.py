"""Figures as PNG files; equal values give equal bytes."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.files import atomic_write

SHOWN_CODES = 1024
"""Most codes in a figure of distances; of more codes, a seeded random subset is shown."""


def image_grid(images: Tensor, columns: int, path: Path, captions: Sequence[str] | None = None, gap: int = 2) -> None:
    """Write images (n, 3, S, S) uint8, row by row, as one PNG on white; small ones are enlarged towards 64 pixels.

    `captions` has one word for each of the n images. The captions of a row are drawn above it, unless they are the same
    as in the row above.
    """
    side = images.shape[2]
    enlarge = max(64 // side, 1)
    step, edge, strip = (side + gap) * enlarge, gap * enlarge, 18
    words = [" ".join(word.split()) for word in captions or ()]
    rows = [range(start, min(start + columns, len(images))) for start in range(0, len(images), columns)]
    lines = [[words[number] for number in row] if words else [] for row in rows]
    above = [bool(line) and (not number or line != lines[number - 1]) for number, line in enumerate(lines)]
    canvas = Image.new("RGB", (columns * step + edge, len(rows) * step + edge + strip * sum(above)), "white")
    pen, top = ImageDraw.Draw(canvas), edge
    for row, line, captioned in zip(rows, lines, above, strict=True):
        for column, word in enumerate(line if captioned else ()):
            middle = edge + column * step + side * enlarge / 2
            word, font = _fitting(word, step - 4)
            pen.text((middle, top + strip / 2), word, "black", font, anchor="mm")
        top += strip if captioned else 0
        for column, number in enumerate(row):
            picture = Image.fromarray(images[number].permute(1, 2, 0).numpy())
            large = picture.resize((side * enlarge, side * enlarge), Image.Resampling.NEAREST)
            canvas.paste(large, (edge + column * step, top))
        top += step
    with atomic_write(path) as side_file:
        canvas.save(side_file, format="PNG")


def _fitting(word: str, width: float) -> tuple[str, ImageFont.FreeTypeFont]:
    """The word, in a smaller font or cut if it is wider than `width`, and its font."""
    import matplotlib

    # A font that every installation has, with more alphabets than Pillow's own.
    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for size in (12, 11, 10):
        font = ImageFont.truetype(file, size)
        if font.getlength(word) <= width:
            return word, font
    kept = next((n for n in range(len(word) - 1, 0, -1) if font.getlength(word[:n] + "\u2026") <= width), 0)
    return word[:kept] + "\u2026", font


def text_lines(texts: Sequence[str], path: Path, wide: int = 100) -> None:
    """Write texts as one PNG on white, each in lines of `wide` characters; unprintable characters become blanks."""
    import matplotlib

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSansMono.ttf"
    font, height, edge = ImageFont.truetype(file, 13), 18, 8
    plain = ["".join(each if each.isprintable() else " " for each in text) for text in texts]
    blocks = [[text[start : start + wide] for start in range(0, len(text), wide)] or [""] for text in plain]
    width = max((font.getlength(line) for block in blocks for line in block), default=0)
    tall = sum(len(block) * height + edge for block in blocks) + edge
    canvas = Image.new("RGB", (int(width) + 2 * edge, tall), "white")
    pen, top = ImageDraw.Draw(canvas), edge
    for block in blocks:
        for line in block:
            pen.text((edge, top), line, "black", font)
            top += height
        top += edge
    with atomic_write(path) as side:
        canvas.save(side, format="PNG")


def distances(table_KD: Tensor) -> tuple[Tensor, str]:
    """|e_i - e_j| of all codes or of a seeded random subset of SHOWN_CODES, in order; and a label, "" for all codes."""
    codes = len(table_KD)
    if codes > SHOWN_CODES:
        drawn = CounterRNG(0, "figures", torch.arange(codes)).uniform("codes").argsort()[:SHOWN_CODES]
        table_KD = table_KD[drawn.sort().values]
    return torch.cdist(table_KD, table_KD), f"{SHOWN_CODES:,} of {codes:,} codes" if codes > SHOWN_CODES else ""


def nearest_pairs(samples: Tensor, training: Tensor, distances: Tensor, path: Path) -> None:
    """Draw samples (n, 3, S, S) uint8 above the training images nearest to them, with the distances (n,)."""
    columns = max(min(len(samples), 6), 1)
    rows = max(-(-len(samples) // columns), 1)
    figure, axes = _figure(2 * rows, columns, (1.5 * columns, 3.4 * rows))
    axes = np.asarray(axes).reshape(2 * rows, columns)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (sample, image, distance) in enumerate(zip(samples, training, distances.tolist(), strict=True)):
        row, column = divmod(number, columns)
        for below, shown in enumerate((sample, image)):
            axes[2 * row + below, column].imshow(shown.permute(1, 2, 0).numpy(), interpolation="nearest")
        axes[2 * row, column].set_title(f"{distance:.3g}", fontsize=8)
    figure.suptitle("samples, and below each the nearest training image with the distance", fontsize=9)
    _save(figure, path)


def noise_schedule(signal: Callable[[Tensor], Tensor], name: str, path: Path) -> None:
    """Plot `signal`, the fraction of signal on the way to noise, and its log odds, beside the cosine schedule.

    The paper's Figure 2.
    """
    u = torch.linspace(0, 1, 400, dtype=torch.float64)
    figure, (left, right) = _figure(1, 2, (9, 3.5))
    for share, style, label in ((torch.cos(u * torch.pi / 2) ** 2, "--", "cosine"), (signal(u), "-", name)):
        left.plot(u, share, style, label=label)
        # The log odds are minus infinity for no signal and may start at plus infinity; these points are not drawn.
        right.plot(u, share.logit(), style, label=label)
    left.set(xlabel="share of the way to noise", ylabel="share of signal")
    right.set(xlabel="share of the way to noise", ylabel="log SNR: log odds of the share", ylim=(-13, 13))
    left.legend()
    _save(figure, path)


def embeddings(codebook_KD: Tensor, table_KD: Tensor, path: Path) -> None:
    """Plot norms and distances of the VQGAN's codebook (above) and of the learned table (below): the paper's Figure 5.

    The codebook (K, 0) of a tokenizer whose codes have no vectors is not drawn.
    """
    tables = {"VQGAN codebook": codebook_KD, "embeddings of the model": table_KD}
    tables = {name: table.float() for name, table in tables.items() if table.shape[1]}
    figure, axes = _figure(len(tables), 2, (9, 3.5 * len(tables)))
    for (left, right), (name, table) in zip(np.reshape(axes, (-1, 2)), tables.items(), strict=True):
        norms = table.norm(dim=1).numpy()
        # Norms that are equal except for rounding would give no usable range for the bins.
        middle, half = float(norms.mean()), max(float(np.ptp(norms)) / 2, 0.05 * float(norms.mean()), 1e-6)
        left.hist(norms, bins=40, range=(max(middle - 2 * half, 0), middle + 2 * half))
        left.set(title=f"{name}: norms", xlabel="norm", ylabel="codes")
        matrix, which = distances(table)
        picture = right.imshow(matrix.numpy(), cmap="viridis", vmin=0)
        below = which and f"\n{which}"
        right.set(title=f"{name}: distances{below}", xlabel="code", ylabel="code")
        figure.colorbar(picture, ax=right)
    _save(figure, path)


def collapse(curves: dict[str, dict[str, list[float]]], tables: dict[str, Tensor], path: Path) -> None:
    """Plot statistics of embeddings over training steps, a line per run, and below the distances of each table."""
    matrices = {run: distances(table_KD) for run, table_KD in tables.items()}
    names = list(dict.fromkeys(name for each in curves.values() for name in each if name != "step"))
    columns = 4
    lines, below = -(-len(names) // columns), -(-len(matrices) // columns)
    figure, axes = _figure(lines + below, columns, (3.4 * columns, 3.2 * (lines + below) + 0.2 * len(curves)))
    axes = np.reshape(axes, (-1, columns))
    for axis in axes.flat:
        axis.set_visible(False)
    for axis, name in zip(axes[:lines].flat, names, strict=False):
        axis.set_visible(True)
        for run, each in curves.items():
            if name in each:
                axis.plot(each["step"], each[name], label=run)
        # From 0, with room for a line that stays at 0 or at the top.
        high = max((value for each in curves.values() for value in each.get(name, ()) if isfinite(value)), default=0.0)
        axis.set(title=name, xlabel="step", ylim=(-0.05 * (high or 1.0), 1.05 * (high or 1.0)))
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)
    largest = max((float(matrix.max()) for matrix, _ in matrices.values()), default=0.0)
    for axis, (run, (matrix, which)) in zip(axes[lines:].flat, matrices.items(), strict=False):
        axis.set_visible(True)
        picture = axis.imshow(matrix.numpy(), cmap="viridis", vmin=0, vmax=largest)
        axis.set_title(f"{run}\n{which}" if which else run, fontsize=8)
        figure.colorbar(picture, ax=axis, shrink=0.7)
    _save(figure, path)


Line = tuple[Sequence[float], Sequence[float]]


def lines(panels: Mapping[str, Mapping[str, Sequence[Line]]], path: Path) -> None:
    """Plot a panel for each name, with the lines (steps, values) of each run, one per seed, in the run's colour."""
    runs = list(dict.fromkeys(run for each in panels.values() for run in each))
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    # The legend above the panels needs room.
    height = 2.9 * rows + 0.2 * -(-len(runs) // 3)
    figure, axes = _figure(rows, columns, (3.4 * columns, height))
    axes = np.asarray(axes).reshape(-1)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    handles = {}
    for axis, (name, of_runs) in zip(axes, panels.items(), strict=False):
        for run, seeds in of_runs.items():
            colour = f"C{runs.index(run)}"
            for steps, values in seeds:
                marker = "o" if len(steps) < 8 else ""
                (handles[run],) = axis.plot(steps, values, color=colour, marker=marker, markersize=3, linewidth=1)
        axis.set(title=name, xlabel="step")
        axis.axhline(0, color="grey", linewidth=0.5)
    figure.legend([handles[run] for run in runs], runs, loc="outside upper center", ncols=3, fontsize=8)
    _save(figure, path)


def _figure(rows: int, columns: int, size: tuple[float, float]):
    # Matplotlib's object interface: pyplot keeps global state and looks for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns)


def _save(figure, path: Path) -> None:
    with atomic_write(path) as side:
        figure.savefig(side, dpi=110, metadata={"Software": None})
