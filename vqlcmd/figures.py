"""Pictures, with the same bytes for the same values."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqlcmd.runtime.files import atomic_write


def image_grid(images: Tensor, columns: int, path: Path, gap: int = 2) -> None:
    """Images (n, 3, S, S) uint8, row by row, as one PNG on white; small ones are enlarged towards 64 pixels."""
    count, _, side, _ = images.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (side + gap) + gap, columns * (side + gap) + gap, 3), 255, dtype=np.uint8)
    for number, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        top, left = (gap + (number // columns) * (side + gap), gap + (number % columns) * (side + gap))
        canvas[top : top + side, left : left + side] = image
    enlarge = max(64 // side, 1)
    picture = Image.fromarray(canvas).resize(
        (canvas.shape[1] * enlarge, canvas.shape[0] * enlarge), Image.Resampling.NEAREST
    )
    with atomic_write(path) as side_file:
        picture.save(side_file, format="PNG")


def nearest_pairs(samples: Tensor, training: Tensor, distances: Tensor, path: Path) -> None:
    """Samples (n, 3, S, S) uint8 above the training images nearest to them, with the distance (n,) of each pair."""
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
    """Share of signal over the way to noise, and its log odds, beside the cosine schedule: the paper's Figure 2."""
    u = torch.linspace(0, 1, 400, dtype=torch.float64)
    figure, (left, right) = _figure(1, 2, (9, 3.5))
    for share, style, label in ((torch.cos(u * torch.pi / 2) ** 2, "--", "cosine"), (signal(u), "-", name)):
        left.plot(u, share, style, label=label)
        # A chain that forgets everything ends at minus infinity, and one may start at plus infinity: no line there.
        right.plot(u, share.logit(), style, label=label)
    left.set(xlabel="share of the way to noise", ylabel="share of signal")
    right.set(xlabel="share of the way to noise", ylabel="log SNR: log odds of the share", ylim=(-13, 13))
    left.legend()
    _save(figure, path)


def embeddings(codebook_KD: Tensor, table_KD: Tensor, path: Path) -> None:
    """Norms and distances of the VQGAN's codebook (above) and of the learned table (below): the paper's Figure 5."""
    figure, axes = _figure(2, 2, (9, 7))
    for (left, right), name, table in (
        (axes[0], "VQGAN codebook", codebook_KD),
        (axes[1], "embeddings of the model", table_KD),
    ):
        table = table.float()
        norms = table.norm(dim=1).numpy()
        # Rows of one length differ by rounding alone, which is no range for bins.
        middle, half = float(norms.mean()), max(float(np.ptp(norms)) / 2, 0.05 * float(norms.mean()), 1e-6)
        left.hist(norms, bins=40, range=(middle - 2 * half, middle + 2 * half))
        left.set(title=f"{name}: norms", xlabel="norm", ylabel="codes")
        picture = right.imshow(torch.cdist(table, table).numpy(), cmap="viridis", vmin=0)
        right.set(title=f"{name}: distances", xlabel="code", ylabel="code")
        figure.colorbar(picture, ax=right)
    _save(figure, path)


def collapse(curves: dict[str, dict[str, list[float]]], matrices: dict[str, Tensor], path: Path) -> None:
    """Statistics of embeddings over training steps, a line per run; below, each run's distances on one scale."""
    names = list(dict.fromkeys(name for each in curves.values() for name in each if name != "step"))
    columns = 4
    lines, below = -(-len(names) // columns), -(-len(matrices) // columns)
    figure, axes = _figure(lines + below, columns, (3.4 * columns, 3.2 * (lines + below) + 0.2 * len(curves)))
    for axis in axes.flat:
        axis.set_visible(False)
    for axis, name in zip(axes[:lines].flat, names, strict=False):
        axis.set_visible(True)
        for run, each in curves.items():
            if name in each:
                axis.plot(each["step"], each[name], label=run)
        axis.set(title=name, xlabel="step", ylim=(0, None))
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=8)
    largest = max(float(matrix_KK.max()) for matrix_KK in matrices.values())
    for axis, (run, matrix_KK) in zip(axes[lines:].flat, matrices.items(), strict=False):
        axis.set_visible(True)
        picture = axis.imshow(matrix_KK.numpy(), cmap="viridis", vmin=0, vmax=largest)
        axis.set_title(run, fontsize=8)
        figure.colorbar(picture, ax=axis, shrink=0.7)
    _save(figure, path)


def _figure(rows: int, columns: int, size: tuple[float, float]):
    # The object interface: pyplot keeps global state and looks for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns)


def _save(figure, path: Path) -> None:
    with atomic_write(path) as side:
        figure.savefig(side, dpi=110, metadata={"Software": None})
