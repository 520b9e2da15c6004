"""A training step of the loop itself against its floor: the same matrix products and attention, and nothing else."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import sizes
from benchmarks.floor import Floor
from benchmarks.measure import Report, Rounds, alongside, flags, milliseconds
from benchmarks.sizes import Size
from vqlcmd.runtime.machine import disable_malloc_trim
from vqlcmd.runtime.resume import State
from vqlcmd.training import loop

ENDLESS = 10**9


def rounds(
    size: Size, repeats: int, *, floor: Floor | None, device: str = "cpu", warm: int = 2, turns: int = 1
) -> Rounds:
    """Rounds of "loop", a training step, and "floor" where one is given, on `size.params.train.batch_size` images."""
    batch = size.params.train.batch_size
    works = {} if floor is None else {"floor": lambda: floor.training_step(batch)}
    with endless_training(size, device) as train:
        return alongside(loop, train, works, repeats, warm=warm, turns=turns)


@contextmanager
def endless_training(size: Size, device: str = "cpu") -> Iterator[Callable[[], object]]:
    """The training loop without an end, and without anything but steps."""
    settings = size.params.train.model_copy(update={"log_every": ENDLESS, "save_every": ENDLESS})
    split = size.split(2 * settings.batch_size, device)
    with tempfile.TemporaryDirectory() as folder:
        yield partial(
            loop.train,
            size.build(device),
            split,
            split,
            settings,
            steps=ENDLESS,
            seed=0,
            state=State(Path(folder) / "none", writer=False),
        )


def main(tiny: bool = False) -> dict[str, float]:
    """The demo's five methods, then the paper's two sizes."""
    disable_malloc_trim()
    sizes.as_stages_run()
    report = Report("step", "a training step against its floor")
    scales: list[tuple[str, Size, int, str]] = []
    for method in sizes.METHODS:
        size = sizes.tiny(method) if tiny else sizes.digits(method=method)
        scales.append((f"demo, {method}", size, 2 if tiny else 25, "≤ 1.6" if method == "lcmd" else ""))
    if not tiny:
        scales.append(("56M, lcmd", sizes.unconditional(batch_size=4), 3, "≤ 1.35"))
        scales.append(("246M, lcmd", sizes.conditional(batch_size=1), 3, ""))
    for name, size, repeats, target in scales:
        found = rounds(size, repeats, floor=Floor(size), warm=1 if repeats < 5 else 3)
        report.row(
            model=name,
            batch=f"{size.params.train.batch_size} x {size.tokens}",
            step=milliseconds(found.median("loop")),
            floor=milliseconds(found.median("floor")),
            ratio=report.ratio(name, found.ratio("loop", "floor"), target),
            in_single_rounds=found.spread("loop", "floor"),
        )
    return report.ratios


if __name__ == "__main__":
    main(**flags("tiny"))
