"""Seconds of several things, taken in turn: what else the machine does falls on all of them alike."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import date
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import psutil
import torch

ROOT = Path(__file__).parent.parent
CPU_SECONDS = "BENCHMARKS_CPU_SECONDS"
"""Set for this process and those it starts where `--cpu` asks for that clock."""


class EnoughError(Exception):
    """Ends a loop that is measured from inside."""


class Rounds:
    """Seconds by name, a list entry for each round."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def add(self, name: str, seconds: float) -> None:
        """What one round of `name` took."""
        self.seconds[name].append(seconds)

    def time(self, name: str, work: Callable[[], object]) -> None:
        """Run `work` once, as one round of `name`."""
        start = now()
        work()
        self.add(name, now() - start)

    def median(self, name: str) -> float:
        """Seconds of a round."""
        return statistics.median(self.seconds[name])

    def ratios(self, name: str, *parts: str) -> list[float]:
        """`name` over the sum of `parts`, in each round."""
        sums = [sum(row) for row in zip(*(self.seconds[part] for part in parts), strict=True)]
        return [one / other for one, other in zip(self.seconds[name], sums, strict=True)]

    def ratio(self, name: str, *parts: str) -> float:
        """The median of these: rounds are short, so that whatever slows the machine slows both sides of one."""
        return statistics.median(self.ratios(name, *parts))

    def spread(self, name: str, *parts: str) -> str:
        """The lowest and the highest of these, a hint at how quiet the machine was."""
        found = self.ratios(name, *parts)
        return f"{min(found):.2f} to {max(found):.2f}"


def computed() -> float:
    """Seconds that this process and those it waited for have computed."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Clock:
    """The clock on the wall; with `--cpu` seconds of computing, which a busy machine disturbs less."""

    read = staticmethod(computed if CPU_SECONDS in os.environ else time.perf_counter)


def now() -> float:
    """Seconds on the clock, once the GPU has nothing left to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return Clock.read()


def interleaved(works: Mapping[str, Callable[[], object]], repeats: int, warm: int = 1) -> Rounds:
    """Time the works one after the other, `repeats` times (A B A B ...), after `warm` rounds that do not count."""
    found = Rounds()
    for number in range(warm + repeats):
        for name, work in works.items():
            (found if number >= warm else Rounds()).time(name, work)
    return found


def alongside(
    module: ModuleType,
    loop: Callable[[], object],
    works: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    warm: int = 1,
    turns: int = 1,
) -> Rounds:
    """Rounds of `turns` turns of a loop of ours, under the name "loop", and of works done in between.

    A turn ends where the loop reports to its Progress, which `module` imports by that name. The first `warm` rounds,
    and with them whatever comes before the loop, do not count.
    """
    found = Rounds()
    turn, started = 0, now()

    def report(*_: object) -> None:
        nonlocal turn, started
        turn += 1
        if turn % turns:
            return
        seconds = (now() - started) / turns
        counts = turn > warm * turns
        if counts:
            found.add("loop", seconds)
        for name, work in works.items():
            (found if counts else Rounds()).time(name, work)
        if len(found.seconds["loop"]) == repeats:
            raise EnoughError
        started = now()

    with mock.patch.object(module, "Progress", return_value=_Reporter(report)), suppress(EnoughError):
        loop()
    assert len(found.seconds["loop"]) == repeats, f"the loop ended after {turn} turns"
    return found


class _Reporter:
    """A Progress that prints nothing."""

    def __init__(self, update: Callable[..., None]):
        self.update = update

    def __enter__(self) -> "_Reporter":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def apart(function: Callable[..., dict[str, float]], *arguments: Any, here: bool = False) -> dict[str, float]:
    """Call a function in a process of its own, so that its peak memory is its own; `here`: in this one after all."""
    return started(function, *arguments, here=here)()


def started(
    function: Callable[..., dict[str, float]], *arguments: Any, here: bool = False
) -> Callable[[], dict[str, float]]:
    """The same without waiting: a call of what it gives waits for the answer."""
    if here:
        return partial(function, *arguments)
    # Run as a script, a module is called __main__, but its specification knows better.
    spec = sys.modules[function.__module__].__spec__
    assert spec is not None, function
    code = f"import json; from {spec.name} import {function.__name__} as f"
    call = f"print(json.dumps(f(*json.loads({json.dumps(json.dumps(arguments))}))))"
    process = subprocess.Popen([sys.executable, "-c", f"{code}; {call}"], cwd=ROOT, stdout=subprocess.PIPE, text=True)

    def answer() -> dict[str, float]:
        text, _ = process.communicate()
        assert process.returncode == 0, f"{function.__name__}{arguments} ended with {process.returncode}"
        return json.loads(text.splitlines()[-1])

    return answer


def memory() -> int:
    """Bytes that this process holds now."""
    return psutil.Process().memory_info().rss


def machine() -> dict[str, float]:
    """What a process of its own starts with."""
    return {"threads": torch.get_num_threads(), "bytes": memory()}


def peak_memory() -> int:
    """The most that it ever held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def flags(*names: str) -> dict[str, bool]:
    """The command line's --NAMEs, as keyword arguments; `--cpu` besides, which sets the clock."""
    parser = argparse.ArgumentParser()
    for name in (*names, "cpu"):
        parser.add_argument(f"--{name}", action="store_true")
    given = vars(parser.parse_args())
    if given.pop("cpu"):
        use_cpu_seconds()
    return given


def use_cpu_seconds() -> None:
    """From here on seconds are those of computing, also in processes that are started."""
    os.environ[CPU_SECONDS] = "1"
    Clock.read = staticmethod(computed)


class Report:
    """Markdown on standard output, line by line as it is measured; `ratios` collects the figures that count."""

    def __init__(self, name: str, title: str):
        self.name, self.ratios, self._columns = name, dict[str, float](), ()
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} cores"
        compiled = ["VQLCMD_COMPILE=1"] if os.environ.get("VQLCMD_COMPILE") == "1" else []
        command = " ".join([*compiled, "python -m", f"benchmarks.{name}", *sys.argv[1:]])
        machine = f"{device}, torch {torch.__version__}, {torch.get_num_threads()} threads"
        clock = ", seconds of computing" if CPU_SECONDS in os.environ else ""
        load = f", load {os.getloadavg()[0]:.1f}"
        self.say(f"\n### {name}: {title}\n\n{date.today()} · {machine}{load}{clock} · `{command}`")

    def say(self, text: str) -> None:
        """A paragraph."""
        print(text, flush=True)
        self._columns = ()

    def row(self, **cells: object) -> None:
        """A row of a table; a new table where the columns are others than before."""
        if tuple(cells) != self._columns:
            names = [name.replace("_", " ") for name in cells]
            self.say(f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
            self._columns = tuple(cells)
        print(f"| {' | '.join(map(str, cells.values()))} |", flush=True)

    def ratio(self, name: str, value: float, target: str = "") -> str:
        """Note a ratio under a name of its own; the text for a cell."""
        assert name not in self.ratios, name
        self.ratios[name] = value
        return f"**{value:.2f}**" + (f" (target {target})" if target else "")


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
