"""Where the time of sampling goes, by PyTorch's profiler: `python -m benchmarks.studies.profile`. One thread.

The demo's size, untrained, in batches of its own; shares of the seconds of computing of all operations.
"""

from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import sizes
from benchmarks.measure import Report
from benchmarks.sample import sampler
from vqlcmd.runtime.machine import disable_malloc_trim

STEPS = 10
GROUPS = {
    "products": ("addmm", "mm", "bmm", "linear"),
    "attention": ("_scaled_dot_product",),
    "copies": ("copy_", "clone", "contiguous", "cat"),
    "GELU": ("gelu",),
    "LayerNorm": ("native_layer_norm", "layer_norm"),
    "adds and multiplications": ("add", "mul", "sub", "addcmul", "div"),
}
"""Names of operations; of attention the beginning of one."""


def group(operation: str) -> str:
    """Which of GROUPS an operation is of."""
    name = operation.removeprefix("aten::")
    found = (each for each, names in GROUPS.items() if name in names or (each == "attention" and names[0] in name))
    return next(found, "the rest")


def main() -> None:
    """Of VQ-LCMD's ancestral sampler."""
    disable_malloc_trim()
    torch.set_num_threads(1)
    size = sizes.digits(method="lcmd")
    draw = sampler(size, size.sampling(steps=STEPS), size.params.sample.batch_size)
    draw()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        draw()
    shares: Counter[str] = Counter()
    for event in seen.key_averages():
        shares[group(event.key)] += event.self_cpu_time_total
    report = Report("studies.profile", "where the time of sampling goes")
    for name, spent in shares.most_common():
        report.row(operations=name, share=f"{100 * spent / shares.total():.0f}%")


if __name__ == "__main__":
    main()
