"""What compilation gives and costs: `python -m benchmarks.studies.compile --cpu`.

The network block by block, as `VQLCMD_COMPILE` has it, and whole, against the network as written; with the same for the
tokenizer, which no stage compiles. First steps are those of new processes, with an empty folder of compiled code and
with the one that it leaves.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any
from unittest import mock

import psutil
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from benchmarks import sizes, step
from benchmarks.measure import Report, Rounds, apart, interleaved, milliseconds, use_cpu_seconds
from benchmarks.sample import sampler
from benchmarks.sizes import Size
from benchmarks.tokenize import PHOTOGRAPHS, architecture
from vqlcmd.diffusion import transformer
from vqlcmd.diffusion.transformer import Block, Transformer
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.machine import INDUCTOR, disable_malloc_trim
from vqlcmd.tokenizer.vqgan import VQGAN

EAGER, BLOCKS, WHOLE = KINDS = "as written", "blocks", "whole"
LAYERS = (4, 12)
IMAGES = 256


@cache
def _passes(kind: str) -> dict[type, Callable[..., Any]]:
    """Of this kind; made once, since each is compiled at its first call."""
    with patched({each: each.forward for each in (Transformer, Block)}):
        if kind != EAGER:
            transformer.compile_network(cuda_graphs=kind == WHOLE)
        return {each: each.forward for each in (Transformer, Block)}


def computing_as(kind: str) -> AbstractContextManager[None]:
    """Inside, transformers compute this way."""
    return patched(_passes(kind))


@contextmanager
def patched(passes: dict[type, Callable[..., Any]]) -> Iterator[None]:
    """Inside, these are what the classes do."""
    with ExitStack() as stack:
        for module, forward in passes.items():
            stack.enter_context(mock.patch.object(module, "forward", forward))
        yield


def network_work(what: str, size: Size) -> Callable[[], float]:
    """Seconds of a step of the training loop, or of a network call in sampling, measured whenever it is called."""
    if what == "train":
        # The second turn alone counts: the first one begins with what comes before the loop.
        return lambda: step.rounds(size, 1, floor=None, warm=1, turns=5).median("loop")
    how = size.sampling(steps=5)
    draw, calls = sampler(size, how, IMAGES), size.build().nfe(how)

    def seconds() -> float:
        found = Rounds()
        found.time("draw", draw)
        return found.median("draw") / calls

    return seconds


def network_rounds(what: str, size: Size, repeats: int) -> Rounds:
    """All kinds in turn."""
    found, work = Rounds(), network_work(what, size)
    for number in range(repeats + 1):
        for kind in KINDS:
            with computing_as(kind):
                seconds = work()
            if number:
                found.add(kind, seconds)
    return found


def first_step(what: str, kind: str, layers: int) -> dict[str, float]:
    """Seconds from the start of this process until a training step, or an image of one network call, is there."""
    size = sizes.digits(network={"layers": layers})
    with computing_as(kind):
        if what == "train":
            step.rounds(size, 1, floor=None, warm=0)
        else:
            sampler(size, size.sampling(steps=1), IMAGES)()
    # Of the clock on the wall: compilers are processes of their own.
    seconds = time.time() - psutil.Process().create_time()
    return {"seconds": seconds, "hits": counters["inductor"]["fxgraph_cache_hit"]}


def errors(size: Size) -> dict[str, dict[str, float]]:
    """The relative differences between each way to compile and none: of a loss's terms, gradients and samples."""

    def answers() -> tuple[Tensor, Tensor, Tensor]:
        model, teacher = size.build().train(), size.build().eval()
        split, how = size.split(64), size.sampling(steps=10)
        rng = CounterRNG(0, "train", torch.arange(64))
        terms = torch.stack([each.mean() for each in model(split.tokens.long(), split.labels, rng, teacher).values()])
        terms.sum().backward()
        gradients = torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])
        return terms.detach(), gradients, teacher.sample(split.labels, CounterRNG(0, "sample", rng.rows), how)

    found: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for kind in KINDS:
        torch.manual_seed(0)
        with computing_as(kind):
            found[kind] = answers()
    terms, gradients, samples = found[EAGER]
    return {
        kind: {
            "terms": float(((other[0] - terms) / terms).abs().max()),
            "gradients": float((other[1] - gradients).norm() / gradients.norm()),
            "samples": float((other[2] == samples).double().mean()),
        }
        for kind, other in found.items()
        if kind != EAGER
    }


def tokenizer_rounds(size: Size, images: int, repeats: int) -> Rounds:
    """The encoder and the decoder of a tokenizer with fresh weights, compiled and not."""
    model = VQGAN(architecture(size)).eval().requires_grad_(False)
    side, grid = size.params.images.size, model.architecture.resolution // model.architecture.downsampling
    pictures = torch.rand(images, 3, side, side) * 2 - 1
    latents = torch.randn(images, size.params.vqgan.z_channels, grid, grid)
    parts = {"encode": (model.encoder, pictures), "decode": (model.decoder, latents)}

    def calling(module: Callable[[Tensor], Tensor], given: Tensor) -> Callable[[], object]:
        return lambda: module(given)

    works = {name: calling(*part) for name, part in parts.items()}
    works |= {f"{name}, compiled": calling(torch.compile(part[0]), part[1]) for name, part in parts.items()}
    with torch.no_grad():
        return interleaved(works, repeats, warm=2)


def study(report: Report, repeats: int, layers: tuple[int, ...]) -> None:
    """All tables, with the folder of compiled code that the environment names."""
    size = sizes.digits()
    batches = {"train": f"{size.params.train.batch_size} x {size.tokens}", "sample": f"{IMAGES} x {size.tokens}"}
    for what, batch in batches.items():
        found = network_rounds(what, size, repeats)
        for kind in KINDS[1:]:
            report.row(
                demo=f"{what}, {batch}",
                compiled=kind,
                as_written=milliseconds(found.median(EAGER)),
                compiled_takes=milliseconds(found.median(kind)),
                gain=report.ratio(f"{what}, {kind}", found.ratio(EAGER, kind)),
                in_single_rounds=found.spread(EAGER, kind),
            )
    for kind, off in errors(size).items():
        report.row(
            compiled=kind,
            terms_off_by=f"{off['terms']:.1e}",
            gradients_off_by=f"{off['gradients']:.1e}",
            tokens_as_written=f"{off['samples']:.2%}",
        )
    for name, photographs, images in (("16 px, demo", False, 64), ("256 px", True, 2)):
        pictures = sizes.digits(**(PHOTOGRAPHS if photographs else {}))
        found = tokenizer_rounds(pictures, images, max(repeats // 3, 1))
        for part in ("encode", "decode"):
            report.row(
                tokenizer=f"{part}, {images} images of {name}",
                as_written=milliseconds(found.median(part)),
                compiled_takes=milliseconds(found.median(f"{part}, compiled")),
                gain=report.ratio(f"{part}, {name}", found.ratio(part, f"{part}, compiled")),
            )
    for what in batches:
        for count in layers:
            eager = apart(first_step, what, EAGER, count)["seconds"]
            for kind in KINDS[1:]:
                with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {INDUCTOR: folder}):
                    cold, warm = (apart(first_step, what, kind, count) for _ in range(2))
                assert warm["hits"], "compiled code was not found again"
                report.row(
                    until_the_first_step=what,
                    layers=count,
                    compiled=kind,
                    as_written=f"{eager:.1f} s",
                    cold=f"{cold['seconds']:.1f} s",
                    warm=f"{warm['seconds']:.1f} s",
                )


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20, help="rounds, each of all ways in turn")
    parser.add_argument("--cpu", action="store_true", help="seconds of computing, but for first steps")
    given = parser.parse_args()
    if given.cpu:
        use_cpu_seconds()
    disable_malloc_trim()
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {INDUCTOR: folder}):
        study(Report("studies.compile", "compilation"), given.repeats, LAYERS)


if __name__ == "__main__":
    main()
