"""How time and memory grow: a training step with tokens, width and batch, sampling with steps and processes."""

import time

import torch

from benchmarks import sizes
from benchmarks.floor import Floor
from benchmarks.measure import Report, apart, flags, gigabytes, interleaved, memory, milliseconds, peak_memory, started
from benchmarks.sample import sampler
from benchmarks.step import rounds
from vqlcmd.runtime.machine import disable_malloc_trim

BASE = {"tokens": 16, "width": 128, "batch": 64}
GROWN = {"tokens": (64, 256), "width": (256, 512), "batch": (128, 256)}
SECONDS = 4.0
"""For which processes draw samples side by side."""


def step(tokens: int, width: int, batch: int, repeats: int) -> dict[str, float]:
    """Seconds of a training step and of its floor, and the most bytes that training takes."""
    disable_malloc_trim()
    size = sizes.digits(tokens=tokens, network={"width": width}, train={"batch_size": batch})
    before = memory()
    rounds(size, 1, floor=None)
    peak = peak_memory() - before
    found = rounds(size, repeats, floor=Floor(size))
    return {"step": found.median("loop"), "floor": found.median("floor"), "bytes": peak}


def draw(threads: int, seconds: float, images: int) -> dict[str, float]:
    """Images per second of one process, drawn for so long in batches of so many."""
    torch.set_num_threads(threads)
    disable_malloc_trim()
    size = sizes.digits()
    work = sampler(size, size.sampling(steps=4), images)
    work()
    start, batches = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        work()
        batches += 1
    return {"rate": batches * images / (time.perf_counter() - start)}


def main(tiny: bool = False) -> dict[str, float]:
    """Around the demo's size; each training in a process of its own, to see its own memory."""
    report = Report("scaling", "time and memory against size, steps and processes")
    repeats = 1 if tiny else 5
    base = {**BASE, "batch": 2} if tiny else BASE
    configurations = [base, *({**base, name: value} for name, values in GROWN.items() for value in values)]
    first: dict[str, float] = {}
    for at in configurations[: 2 if tiny else None]:
        taken = apart(step, *at.values(), repeats, here=tiny)
        first = first or taken
        grew = " ".join(f"{name} x{at[name] // base[name]}" for name in at if at[name] != base[name]) or "demo"
        report.row(
            training=grew,
            **at,
            step=milliseconds(taken["step"]),
            over_floor=report.ratio(grew, taken["step"] / taken["floor"]),
            times_the_demo=f"{taken['step'] / first['step']:.2f}",
            floor_times_the_demo=f"{taken['floor'] / first['floor']:.2f}",
            memory=gigabytes(taken["bytes"]),
        )

    size = sizes.tiny() if tiny else sizes.digits()
    images, counts = (4, (1, 4)) if tiny else (256, (5, 10, 20, 40))
    works = {f"{steps} steps": sampler(size, size.sampling(steps=steps), images) for steps in counts}
    found = interleaved(works, repeats)
    shortest = next(iter(works))
    for steps, name in zip(counts, works, strict=True):
        report.row(
            sampling=name,
            nfe=steps + 1,
            time=milliseconds(found.median(name)),
            times_the_first=report.ratio(name, found.ratio(name, shortest)),
            calls_times_the_first=f"{(steps + 1) / (counts[0] + 1):.2f}",
        )

    seconds = 0.05 if tiny else SECONDS
    alone, two_threads = (apart(draw, threads, seconds, images, here=tiny)["rate"] for threads in (1, 1 if tiny else 2))
    pair = [started(draw, 1, seconds, images, here=tiny) for _ in range(2)]
    together = sum(answer()["rate"] for answer in pair)
    for name, rate in (("1 x 1", alone), ("1 x 2", two_threads), ("2 x 1", together)):
        report.row(
            processes_x_threads=name,
            images_per_second=f"{rate:,.0f}",
            against_one_thread=report.ratio(name, rate / alone, "≥ 1.8" if name == "2 x 1" else ""),
        )
    return report.ratios


if __name__ == "__main__":
    main(**flags("tiny"))
