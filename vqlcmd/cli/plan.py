"""Prints what a run would cost, by params.yaml or a preset, on this machine. No stage runs, and nothing is written."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from vqlcmd.costs import gpus
from vqlcmd.costs.plan import Data, Plan, plan
from vqlcmd.costs.text_plan import TextPlan, text_plan
from vqlcmd.images import manifest
from vqlcmd.params import Params, TextParams, load_run
from vqlcmd.precision import BF16, FLOAT32, PRECISIONS, TF32, computing
from vqlcmd.runtime import paths
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.text import corpus, vocabulary

PUBLISHED = {
    "ffhq": (70_000, 0),
    "lsun_churches": (126_227, 0),
    "lsun_bedrooms": (3_033_042, 0),
    "imagenet": (1_281_167, 1000),
}
"""Images and classes of the presets' data sets as their authors give them, for plans before a scan."""
REACHED = {
    ("cpu", FLOAT32): 0.7,
    ("cpu", TF32): 0.7,
    ("cpu", BF16): 0.2,
    ("cuda", FLOAT32): 0.5,
    ("cuda", TF32): 0.4,
    ("cuda", BF16): 0.4,
}
"""The fraction of the rate of a bare matrix product that networks reach.

CPU: seen on a two-core Xeon. GPU: a guess.
"""
SECONDS = 0.5
UNCOUNTED = "Reading picture files and whatever is no matrix product is not counted."
UNITS = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
SPANS = ((365 * 86400, "years"), (86400, "days"), (3600, "h"), (60, "min"))


@dataclass(frozen=True)
class Machine:
    """A machine: the kind of its devices, how many, free bytes in memory and on disk, FLOP/s, and a description.

    `rates` are by kind of device and precision.
    """

    kind: str
    devices: int
    memory: float
    disk: int | None
    """None where it is not known."""
    rates: dict[tuple[str, str], float]
    words: str

    def seconds(self, flops: float, precision: str, *, shared: bool) -> float:
        """The time in seconds for `flops` FLOPs; if `shared`, all devices share them."""
        rate = self.rates[self.kind, precision] * REACHED[self.kind, precision]
        return flops / (rate * (self.devices if shared else 1))


def print_plan(
    preset: str | None, images: int | None, classes: int | None, gpu: str | None = None, count: int | None = None
) -> None:
    """Prints the plan of params.yaml, or of presets/NAME.yaml, for this machine or for `count` published GPUs."""
    if count is not None and gpu is None:
        raise ConfigError(f"--count {count} is of GPUs that one does not sit at: say --gpu NAME too")
    elsewhere = _published(gpu, count or 1) if gpu else None
    path = Path("presets") / f"{preset}.yaml" if preset else Path("params.yaml")
    params = load_run(path)
    if isinstance(params, TextParams):
        made, what = _text(params, images)
    elif isinstance(params, Params):
        made, what = _pictures(params, images, classes)
    else:
        raise ConfigError(f"{path}: `domain` is {params.domain}, of which nothing is known that a plan needs")
    console = Console(highlight=False)
    console.print(f"[bold]{path}[/bold]: {params.method} on {params.dataset}, {what} of {made.sizes.codes:,} codes")
    console.print(_work(made))
    machine = elsewhere or _machine()
    if params.train.batch_size % machine.devices:
        raise ConfigError(
            f"train.batch_size {params.train.batch_size} is no multiple of {machine.devices} GPUs: set --count to "
            "a number that divides it"
        )
    console.print(_memory(made, machine))
    console.print(_disk(made, machine))
    console.print(_time(made, machine))
    console.print(machine.words)


def _pictures(params: Params, images: int | None, classes: int | None) -> tuple[Plan, str]:
    data, source = _data(params, images, classes)
    made = plan(params, data)
    return made, (
        f"{data.images:,} images ({source}), {made.sizes.classes or 'no'} classes, {params.images.size} pixels as "
        f"{made.sizes.tokens} tokens"
    )


def _text(params: TextParams, blocks: int | None) -> tuple[TextPlan, str]:
    path, block = paths.MANIFESTS / f"{params.dataset}.json", params.tokenize.block
    source = "as --images says"
    if blocks is None:
        if not path.exists():
            raise ConfigError(f"{path} is missing: scan {params.dataset} with --text, or say --images COUNT of blocks")
        count = sum(file.bytes for file in corpus.read(path).files)
        blocks, source = count // block, f"as many as the {count:,} bytes of {path} make without any reduction"
    if paths.VOCABULARY.exists():
        codes = vocabulary.load(paths.VOCABULARY).codes
    elif params.text.vocabulary == vocabulary.Bytes.name:
        codes = vocabulary.Bytes().codes
    else:
        raise ConfigError(
            f"{paths.VOCABULARY} is missing, which says how many symbols there are: `dvc repro vocabulary`"
        )
    return text_plan(params, blocks, codes), f"{blocks:,} blocks ({source}) of {block} tokens"


def _data(params: Params, images: int | None, classes: int | None) -> tuple[Data, str]:
    path = paths.MANIFESTS / f"{params.dataset}.json"
    count, known = PUBLISHED.get(params.dataset, (0, 0))
    source = "its published size, not scanned here"
    if images is not None:
        count, source = images, "as --images says"
    elif path.exists():
        listed = manifest.read(path)
        count, known, source = listed.image_count, len(listed.classes), str(path)
    elif not count:
        raise ConfigError(f"{path} is missing: scan {params.dataset}, or say --images COUNT (and --classes COUNT)")
    return Data(count, known if classes is None else classes), source


def _machine() -> Machine:
    import psutil

    kind, on_gpu = device().type, torch.cuda.is_available()
    rates = {(kind, precision): _rate(kind, precision) for precision in PRECISIONS}
    devices = max(torch.cuda.device_count(), 1)
    name = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    return Machine(
        kind=kind,
        devices=devices,
        memory=torch.cuda.mem_get_info()[0] if on_gpu else psutil.virtual_memory().available,
        disk=shutil.disk_usage(Path()).free,
        rates=rates,
        words=f"{devices} x {name}. Measured just now on bare matrix products (on a CPU one thread's, times the "
        f"threads): {_rates(rates)}. {UNCOUNTED}",
    )


def _published(name: str, count: int) -> Machine:
    gpu = gpus.find(name)
    rates = {("cuda", FLOAT32): gpu.float32, ("cuda", TF32): gpu.tf32, ("cuda", BF16): gpu.bf16}
    return Machine(
        kind="cuda",
        devices=count,
        memory=gpu.memory,
        disk=None,
        rates=rates,
        words=f"{count} x {name.lower()}. Arithmetic, not measured: published dense peaks ({gpu.source}), "
        f"{_rates(rates)}. {UNCOUNTED}",
    )


def _rates(rates: dict[tuple[str, str], float]) -> str:
    return "; ".join(
        f"{kind} {precision} {_si(rate)}FLOP/s, of which {REACHED[kind, precision]:.0%} are assumed"
        for (kind, precision), rate in rates.items()
    )


def _rate(kind: str, precision: str) -> float:
    """FLOP/s of the fastest of many matrix products; on a CPU, that of one thread times the number of threads."""
    # Short products on one thread, some of which run undisturbed even on a busy machine.
    side, threads, best = (512 if kind == "cpu" else 8192), torch.get_num_threads(), 0.0
    wait = torch.cuda.synchronize if kind == "cuda" else lambda: None
    torch.set_num_threads(1)
    try:
        dtype = torch.bfloat16 if precision == BF16 else torch.float32
        one, other = (torch.randn(side, side, device=kind).to(dtype) for _ in range(2))
        with computing(precision, kind):
            torch.mm(one, other)
            wait()
            end = time.perf_counter() + SECONDS
            while time.perf_counter() < end:
                start = time.perf_counter()
                torch.mm(one, other)
                wait()
                best = max(best, 2 * side**3 / (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    return best * (threads if kind == "cpu" else 1)


def _work(made: Plan | TextPlan) -> Table:
    table = _table(f"Parameters, and FLOPs {made.one} (T is 10^12, P 10^15, E 10^18)", "what", "amount", "note")
    costs, batch = made.costs, made.params.train.batch_size
    passes = costs.training / costs.forward
    table.add_row("network", f"{costs.parameters:,}", "parameters, with the table of embeddings")
    table.add_row("one pass of the network", _si(costs.forward), "")
    table.add_row(
        "training", _si(costs.training), f"{passes:.1f} passes; a step of {batch}: {_si(batch * costs.training)}"
    )
    table.add_row("sampling", _si(costs.sampling), f"{costs.nfe} calls of the network")
    for what, amount, note in made.rows():
        table.add_row(what, f"{amount:,}" if note.startswith("parameters") else _si(amount), note)
    return table


def _memory(made: Plan | TextPlan, machine: Machine) -> Table:
    where = "GPU memory" if machine.kind == "cuda" else "memory"
    memory, batch = made.memory(machine.kind == "cpu"), made.params.train.batch_size // machine.devices
    fits = min(memory.images(machine.memory), batch)
    free = "free now" if machine.disk is not None else "there"
    table = _table(f"Training: {where}, of which {_bytes(machine.memory)} are {free}", "what", "amount", "note")
    table.add_row("weights, gradients", _bytes(memory.weights + memory.gradients), "")
    table.add_row("two moments, moving average", _bytes(memory.moments + memory.average), "")
    note = "in float32; in bf16 less" if made.params.train.precision == "bf16" else ""
    table.add_row(f"activations, {made.one}", _bytes(memory.per_image), note)
    table.add_row(
        f"all, with {batch} {made.params.unit}",
        _bytes(memory.fixed + batch * memory.per_image),
        "a process's share of a batch",
    )
    advice = "all of them" if fits == batch else f"set VQLCMD_MICRO_BATCH={fits}" if fits else "not even one"
    table.add_row(f"{made.params.unit} that fit at once", str(fits), advice)
    table.add_row("tokens", _bytes(made.disk()["data/tokens"]), "where they do not fit, they are streamed")
    table.add_row(
        "distances of embeddings",
        _bytes(made.statistics_memory()),
        f"of {made.sizes.codes:,} codes, at each row of train.tsv",
    )
    table.add_row("evaluate, at its end", _bytes(made.evaluation_memory()), f"of real and generated {made.params.unit}")
    return table


def _disk(made: Plan | TextPlan, machine: Machine) -> Table:
    free = "" if machine.disk is None else f", of which {_bytes(machine.disk)} are free here"
    table = _table(f"Disk{free}", "what", "amount", "note")
    files = made.disk()
    for name, size in files.items():
        table.add_row(name, _bytes(size), "")
    table.add_row(
        "together", _bytes(sum(files.values())), "DVC's cache links to the same bytes where the disk can, else twice"
    )
    row = files["data/model"] + files["data/samples"]
    table.add_row(
        "each further experiment",
        _bytes(row),
        "model and samples, in the cache; `dvc gc -w` drops what no file here needs",
    )
    table.add_row(".state/, while training", _bytes(made.state()), "of a run that nobody goes on with: `rm -r .state`")
    return table


def _time(made: Plan | TextPlan, machine: Machine) -> Table:
    where = "this machine" if machine.disk is not None else "such a machine"
    table = _table(f"Time on {where}: arithmetic, not a measurement", "stage", "FLOPs", "precision", "time")
    for stage, work in made.work().items():
        if not work.flops:
            continue
        seconds = machine.seconds(work.flops, work.precision, shared=work.shared)
        table.add_row(stage, _si(work.flops), work.precision, _span(seconds))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number and column != "note" else "left")
    return table


def _si(number: float) -> str:
    return next((f"{number / unit:.3g} {name}" for unit, name in UNITS if number >= unit), f"{number:.3g}")


def _bytes(number: float) -> str:
    return f"{_si(number)}B" if number >= 1e3 else f"{number:.0f} B"


def _span(seconds: float) -> str:
    return next((f"{seconds / unit:.1f} {name}" for unit, name in SPANS if seconds >= unit), f"{seconds:.0f} s")
