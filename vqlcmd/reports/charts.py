"""Curves as SVG, with the same bytes for the same values."""

import io
import math
from collections.abc import Mapping, Sequence

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which most people can tell apart; further lines have them again, dashed."""
STYLES = ("-", "--", ":", "-.")

Line = tuple[Sequence[float], Sequence[float]]


def curves(title: str, lines: Mapping[str, Line]) -> str | None:
    """An SVG of lines {label: (steps, values)} over the steps of a training; None if no value is finite."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    drawn = {label: line for label, line in lines.items() if any(math.isfinite(value) for value in line[1])}
    if not drawn:
        return None
    # Text is written as text, not as outlines, and no identifier is random.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vqlcmd", "font.family": "sans-serif"}):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        for number, (label, (steps, values)) in enumerate(drawn.items()):
            colour, style = COLOURS[number % len(COLOURS)], STYLES[number // len(COLOURS) % len(STYLES)]
            axes.plot(steps, values, style, color=colour, label=label, linewidth=1.6)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(drawn) > 1:
            axes.legend(fontsize=8, frameon=False)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return written.getvalue()
