"""What a GPU does with it: its ceilings, measured first, and how near training, sampling and the tokenizer come.

`--tiny` runs all of it on whatever there is, a CPU too, so that the tests can.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from benchmarks import sizes
from benchmarks.floor import Floor, flops
from benchmarks.measure import Report, flags, gigabytes, interleaved, milliseconds
from benchmarks.sample import calls, sampler
from benchmarks.sizes import Size
from benchmarks.step import rounds
from vqlcmd.diffusion.transformer import Block, Transformer
from vqlcmd.precision import BF16, FLOAT32, PRECISIONS, TF32, computing
from vqlcmd.rng import CounterRNG
from vqlcmd.tokenizer.vqgan import VQGAN, Architecture

IMAGES = 50_000
OPERANDS = {FLOAT32: torch.float32, TF32: torch.float32, BF16: torch.bfloat16}
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "aten::item", "aten::nonzero")
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")


@dataclass(frozen=True)
class Scale:
    """How much is measured: repeats, turns of a loop in each, the side of square products, sampling steps."""

    repeats: int
    turns: int
    side: int
    steps: int


def where() -> str:
    """The GPU, or the CPU where there is none."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def attempt(report: Report, what: str, work: Callable[[], object]) -> None:
    """Run one measurement; where it fails, say so and let the others run."""
    try:
        work()
    except (RuntimeError, NotImplementedError) as error:
        report.say(f"\n{what} failed: {' '.join(str(error).split())[:200]}")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def ceilings(report: Report, scale: Scale) -> dict[str, float]:
    """Bytes per second of a copy, and operations per second of square products by precision."""
    side, rates = scale.side, {}
    source = torch.randn(4 * side, side, device=where())
    target = torch.empty_like(source)
    found = interleaved({"copy": lambda: target.copy_(source)}, scale.repeats, warm=3)
    report.row(ceiling="copy", rate=f"{2 * source.nbytes / found.median('copy') / 1e9:,.0f} GB/s")
    for kind, dtype in OPERANDS.items():
        square = torch.randn(side, side, device=where()).to(dtype)
        with computing(kind, where()):
            found = interleaved({"product": partial(torch.mm, square, square)}, scale.repeats, warm=3)
        rates[kind] = 2 * side**3 / found.median("product")
        report.row(ceiling=f"product of {side} x {side}, {kind}", rate=f"{rates[kind] / 1e12:,.2f} TFLOP/s")
    return rates


def training(report: Report, scale: Scale, name: str, size: Size, kind: str, rate: float) -> None:
    """A training step against its floor, its share of the matrix rate, and the memory it takes."""
    batch = size.params.train.batch_size
    # The trainer has its own autocast: here only what float32 means.
    with computing(FLOAT32 if kind == BF16 else kind, where()):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        rounds(size, 1, floor=None, device=where())
        taken = gigabytes(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else "not a GPU's"
        floor = Floor(size, where(), OPERANDS[kind])
        work = flops(lambda: floor.training_step(batch))
        found = rounds(size, scale.repeats, floor=floor, device=where(), turns=scale.turns)
    step = found.median("loop")
    report.row(
        training=f"{name}, {kind}",
        batch=f"{batch} x {size.tokens}",
        step=milliseconds(step),
        images_per_second=f"{batch / step:,.0f}",
        over_floor=report.ratio(f"{name}, batch {batch}, {kind}", found.ratio("loop", "floor"), "≤ 1.35"),
        share_of_matrix_rate=f"{work / step / rate:.1%}",
        memory=taken,
    )


def compiled(report: Report, scale: Scale, size: Size, mode: str, backend: str) -> None:
    """The step once more with compiled blocks, as VQLCMD_COMPILE has it, or with CUDA graphs of the whole pass."""
    eager = rounds(size, scale.repeats, floor=None, device=where(), turns=scale.turns).median("loop")
    module = Transformer if mode == "reduce-overhead" else Block
    kind = mode if backend == "inductor" else None
    forward = torch.compile(module.forward, backend=backend, dynamic=module is Block, mode=kind)
    with mock.patch.object(module, "forward", forward):
        step = rounds(size, scale.repeats, floor=None, device=where(), turns=scale.turns, warm=3).median("loop")
    report.row(
        compiled=f"{mode} ({backend})",
        step=milliseconds(step),
        eager=milliseconds(eager),
        gain=report.ratio(f"compiled, {mode}", eager / step),
    )


def sampling(report: Report, scale: Scale, name: str, size: Size, kind: str, steps: int, guidance: float) -> None:
    """A few steps, and from them the hours for 50,000 images at the paper's number of steps."""
    batch = size.params.sample.batch_size
    short = size.sampling(steps=scale.steps, guidance=guidance, precision=kind)
    paper = size.sampling(steps=steps, guidance=guidance)
    # Guidance asks for both answers at once: half the calls, of twice the images.
    both = 2 if guidance else 1
    floor = Floor(size, where(), OPERANDS[kind])

    def least() -> None:
        with computing(FLOAT32 if kind == BF16 else kind, where()):
            floor.sampling(both * batch, calls(size, short) // both)

    found = interleaved({"ours": sampler(size, short, batch, where()), "floor": least}, scale.repeats)
    a_call = found.median("ours") / calls(size, short)
    report.row(
        sampling=f"{name}, {kind}, guidance {guidance:g}",
        batch=batch,
        a_network_call=milliseconds(a_call),
        over_floor=report.ratio(f"sampling {name}, {kind}", found.ratio("ours", "floor"), "≤ 1.3"),
        hours_for_50000_images=f"{IMAGES / batch * calls(size, paper) * a_call / 3600:.2f} in {steps} steps",
    )


def rng(report: Report, scale: Scale, images: int, tokens: int, width: int) -> None:
    """Addressed normal numbers against PyTorch's own generator."""
    stream = CounterRNG(0, "benchmark", torch.arange(images, device=where()))
    works = {
        "ours": lambda: stream.normal("step", tokens, width),
        "torch": lambda: torch.randn(images, tokens, width, device=where()),
    }
    found = interleaved(works, scale.repeats, warm=3)
    report.row(
        normal_numbers=f"{images} x {tokens} x {width}",
        ours=milliseconds(found.median("ours")),
        torch_randn=milliseconds(found.median("torch")),
        ratio=report.ratio("noise", found.ratio("ours", "torch")),
    )


def encoder(report: Report, scale: Scale, architecture: Architecture, images: int) -> None:
    """The tokenizer's way in, against its convolutions alone on inputs of the same shapes; float32 both."""
    tokenizer = VQGAN(architecture).to(where()).eval().requires_grad_(False)
    pixels = torch.rand(images, 3, architecture.resolution, architecture.resolution, device=where()) * 2 - 1
    seen: list[tuple[nn.Conv2d, torch.Size]] = []

    def note(layer: nn.Conv2d, module: nn.Module, given: tuple[Tensor]) -> None:
        seen.append((layer, given[0].shape))

    layers = [layer for layer in tokenizer.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(partial(note, layer)) for layer in layers]
    tokenizer.encode(pixels)
    for hook in hooks:
        hook.remove()
    inputs: dict[torch.Size, Tensor] = {shape: torch.randn(shape, device=where()) for _, shape in seen}

    def convolutions() -> None:
        for layer, shape in seen:
            F.conv2d(inputs[shape], layer.weight, None, layer.stride, layer.padding)

    found = interleaved({"ours": lambda: tokenizer.encode(pixels), "floor": convolutions}, scale.repeats)
    report.row(
        encoder=f"{images} images of {architecture.resolution} px, float32",
        rate=f"{images / found.median('ours'):,.0f} images/s",
        its_convolutions=f"{images / found.median('floor'):,.0f} images/s",
        over_floor=report.ratio("encoder", found.ratio("ours", "floor")),
    )


def waits(report: Report, name: str, work: Callable[[int], object], turns: int) -> None:
    """How often the host waits for the GPU in a turn of `work`: what twice as many turns have more, but for set-up."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    work(turns)
    counts: Counter[str] = Counter()
    for sign, number in ((-1, turns), (1, 2 * turns)):
        with profile(activities=kinds) as trace:
            work(number)
        counts.update({event.key: sign * event.count for event in trace.key_averages()})
    report.row(
        host=name,
        **{wait.removeprefix("aten::"): f"{counts[wait] / turns:.1f}" for wait in WAITS},
        launches=f"{sum(counts[launch] for launch in LAUNCHES) / turns:.0f}",
        operators=f"{sum(count for key, count in counts.items() if key.startswith('aten::')) / turns:.0f}",
    )


def main(tiny: bool = False) -> dict[str, float]:
    """Ceilings, training, compilation, sampling, noise, the tokenizer, and where the host waits."""
    report = Report("gpu", "ceilings, and what is reached")
    if not (tiny or torch.cuda.is_available()):
        report.say("\nNo GPU here, so nothing is measured; `--tiny` runs it on a CPU.")
        return report.ratios
    scale = Scale(1, 1, 64, 2) if tiny else Scale(7, 10, 8192, 8)
    rates = ceilings(report, scale)

    def scales(batch_size: int, precision: str) -> dict[str, Size]:
        if tiny:
            return {"56M": sizes.tiny()}
        given = {"batch_size": batch_size, "precision": precision}
        return {"56M": sizes.unconditional(**given), "246M": sizes.conditional(**given)}

    for batch, kind in ((128, BF16),) if tiny else ((128, BF16), (256, BF16), (128, TF32), (128, FLOAT32)):
        for name, size in scales(batch, BF16 if kind == BF16 else FLOAT32).items():
            attempt(report, name, partial(training, report, scale, name, size, kind, rates[kind]))
    small = scales(128, BF16)["56M"]
    # Seconds to compile anything at all: the tests do it on their own.
    for mode in () if tiny else ("default", "reduce-overhead"):
        attempt(report, f"torch.compile, {mode}", partial(compiled, report, scale, small, mode, "inductor"))
    for kind in (BF16,) if tiny else PRECISIONS:
        for name, size in scales(128, FLOAT32).items():
            steps, guidance = (50, 1.0) if size.classes else (200, 0.0)
            attempt(report, name, partial(sampling, report, scale, name, size, kind, steps, guidance))
    attempt(report, "noise", partial(rng, report, scale, 4 if tiny else 256, small.tokens, small.params.embedding_dim))
    ours = Architecture(8, 32, (1, 1), 1, (), 32, 8, 16) if tiny else Architecture()
    attempt(report, "encoder", partial(encoder, report, scale, ours, 2 if tiny else 32))

    def train(turns: int) -> None:
        rounds(small, 1, floor=None, device=where(), warm=0, turns=turns)

    def draw(steps: int) -> None:
        sampler(small, small.sampling(steps=steps), small.params.train.batch_size, where())()

    for name, work in (("a training step", train), ("a sampling step", draw)):
        attempt(report, "waits", partial(waits, report, name, work, scale.steps))
    return report.ratios


if __name__ == "__main__":
    main(**flags("tiny"))
