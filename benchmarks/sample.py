"""Sampling against its floor, step by step, and how long each method needs for an image."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks import sizes
from benchmarks.floor import Floor
from benchmarks.measure import Report, flags, interleaved, milliseconds
from benchmarks.sizes import Size
from vqlcmd.params import Sampling
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.machine import disable_malloc_trim

TABLE = "presets/digits_table.yaml"
# Rows of tables/methods.yaml that differ in time: (name, method, what sampling changes).
ROWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("VQ-LCMD", "lcmd", {}),
    ("VQ-LCMD, 4 DDIM steps", "lcmd", {"sampler": "ddim", "steps": 4}),
    ("D3PM uniform", "d3pm", {}),
    ("VQ-Diffusion", "vq_diffusion", {}),
    ("MaskGIT", "maskgit", {}),
    ("MaskGIT, 8 steps", "maskgit", {"steps": 8}),
    ("autoregressive", "autoregressive", {}),
)


def sampler(size: Size, how: Sampling, images: int, device: str = "cpu") -> Callable[[], object]:
    """A function that draws so many images, each of the next class."""
    method = size.build(device).eval().requires_grad_(False)
    rows = torch.arange(images, device=device)
    label = rows % size.classes if size.classes else None
    return lambda: method.sample(label, CounterRNG(0, "sample", rows), how)


def calls(size: Size, how: Sampling) -> int:
    """Passes through the network, as the methods count them."""
    return size.build().nfe(how)


def main(tiny: bool = False) -> dict[str, float]:
    """Each method at the demo's size against its floor, and at the settings of the table of methods."""
    disable_malloc_trim()
    sizes.as_stages_run()
    report = Report("sample", "sampling against its floor, and seconds per 1,000 images")
    repeats = 2 if tiny else 3
    for name, method, changes in ROWS:
        size = sizes.tiny(method) if tiny else sizes.digits(method=method)
        how = size.sampling(**changes)
        images, passes = 4 if tiny else size.params.sample.batch_size, calls(size, how)
        works = {"sample": sampler(size, how, images), "floor": partial(Floor(size).sampling, images, passes)}
        found = interleaved(works, repeats)
        report.row(
            demo=name,
            steps=how.steps,
            nfe=passes,
            a_call=milliseconds(found.median("sample") / passes),
            its_floor=milliseconds(found.median("floor") / passes),
            ratio=report.ratio(f"demo, {name}", found.ratio("sample", "floor"), "≤ 1.3" if name == "VQ-LCMD" else ""),
            images_per_second=round(images / found.median("sample"), 1),
        )
    for name, method, changes in ROWS:
        size = sizes.tiny(method) if tiny else sizes.digits(TABLE, method=method)
        how = size.sampling(**changes)
        images = 4 if tiny else 250
        found = interleaved({"sample": sampler(size, how, images)}, 1 if tiny else 3)
        report.row(
            table_of_methods=name,
            steps=how.steps,
            nfe=calls(size, how),
            seconds_per_1000_images=f"{1000 / images * found.median('sample'):.2f}",
        )
    return report.ratios


if __name__ == "__main__":
    main(**flags("tiny"))
