"""The benchmarks run, and their floors are what they say: the same products as the model's, and nothing else."""

import copy
import importlib
import math
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import gpu, measure, sizes
from benchmarks.__main__ import NAMES
from benchmarks.floor import Floor, flops
from benchmarks.measure import Clock, Report, Rounds, alongside, interleaved
from tests.pipeline_imports import ROOT
from vqlcmd.rng import CounterRNG


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still unless a test moves it."""
    hands = SimpleNamespace(time=0.0)
    monkeypatch.setattr(Clock, "read", staticmethod(lambda: hands.time))
    return hands


@pytest.mark.parametrize("name", [*NAMES, "gpu"])
def test_a_benchmark_runs_and_prints_ratios_as_markdown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    ratios = importlib.import_module(f"benchmarks.{name}").main(tiny=True)
    printed = capsys.readouterr().out
    assert ratios
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in ratios.values()), ratios
    assert f"### {name}: " in printed
    assert f"`python -m benchmarks.{name}" in printed
    for line in printed.splitlines():
        assert line.startswith("|") == line.endswith("|"), line
    assert " failed: " not in printed


@pytest.mark.slow
# Whoever is not installed is named and left out; what others warn of is not ours.
@pytest.mark.filterwarnings("ignore")
def test_peers_that_are_there_are_compared_and_the_others_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    ratios = importlib.import_module("benchmarks.peers.__main__").main(tiny=True)
    printed = capsys.readouterr().out
    assert ratios["FID, 100 x 8"] > 0
    assert ratios["records, one .npy per image"] > 0
    assert ratios["encoder, 16"] > 0
    for package, name in {
        "taming": "encode, taming",
        "diffusers": "encode, diffusers",
        "transformers": "generate, 16",
    }.items():
        assert (name in ratios) != (f"{package} is not installed" in printed), printed


@pytest.mark.slow
# torch.compile warns of what it does itself.
@pytest.mark.filterwarnings("ignore:.*is not a leaf Tensor:UserWarning")
def test_a_step_with_a_compiled_network_is_compared_with_one_without() -> None:
    report = Report("gpu", "compiled")
    gpu.compiled(report, gpu.Scale(repeats=1, turns=1, side=8, steps=1), sizes.tiny(), "default", "eager")
    assert report.ratios["compiled, default"] > 0


@pytest.mark.parametrize("method", sizes.METHODS)
@pytest.mark.parametrize(("classes", "dropout"), [(0, 0.0), (10, 0.1)])
def test_the_floor_has_the_products_of_a_training_step_and_of_sampling(
    method: str, classes: int, dropout: float
) -> None:
    given = sizes.tiny(method).params
    network = given.network.model_copy(update={"dropout": dropout})
    size = sizes.Size(given.model_copy(update={"network": network}), tokens=16, codes=64, classes=classes)
    model, split, floor = size.build(), size.split(4), Floor(size)
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    label, how = split.labels if classes else None, size.sampling()

    def step() -> None:
        terms = model(split.tokens.long(), label, CounterRNG(0, "train", split.index), teacher)
        torch.stack([term.mean() for term in terms.values()]).sum().backward()

    assert flops(step) == flops(lambda: floor.training_step(4)) > 0
    drawn = flops(lambda: teacher.sample(label, CounterRNG(0, "sample", split.index), how))
    assert drawn == flops(lambda: floor.sampling(4, teacher.nfe(how))) > 0


def test_the_paper_s_sizes_have_the_paper_s_numbers_of_parameters() -> None:
    for size, parameters in ((sizes.unconditional(1), 56_070_400), (sizes.conditional(1), 246_431_232)):
        with torch.device("meta"):
            method: Any = size.build("meta")
        assert sum(parameter.numel() for parameter in method.parameters()) == parameters


def test_works_take_turns_and_the_warm_rounds_do_not_count(clock: SimpleNamespace) -> None:
    """The first round is slow, as caches are cold; a later one is slow for another's sake, and a median forgets it."""
    order = ""
    a_seconds, b_seconds = iter([100.0, 1.0, 9.0, 3.0]), iter([100.0, 2.0, 2.0, 2.0])

    def a() -> None:
        nonlocal order
        order += "a"
        clock.time += next(a_seconds)

    def b() -> None:
        nonlocal order
        order += "b"
        clock.time += next(b_seconds)

    found = interleaved({"a": a, "b": b}, repeats=3, warm=1)
    assert order == "abababab"
    assert found.seconds == {"a": [1, 9, 3], "b": [2, 2, 2]}
    assert (found.median("a"), found.median("b")) == (3, 2)


def test_a_ratio_compares_within_rounds_so_that_a_machine_that_slows_down_does_not_decide() -> None:
    """Medians of both sides on their own would come from different rounds here, and give 4."""
    rounds = Rounds()
    for slowness, ratio in ((1, 2), (1, 3), (1, 4), (9, 2), (9, 3)):
        rounds.add("all", ratio * slowness)
        rounds.add("one", 0.75 * slowness)
        rounds.add("other", 0.25 * slowness)
    assert rounds.ratio("all", "one", "other") == pytest.approx(3)
    assert rounds.spread("all", "one", "other") == "2.00 to 4.00"


def test_a_loop_is_timed_from_report_to_report_without_what_is_done_in_between(clock: SimpleNamespace) -> None:
    module: Any = SimpleNamespace(Progress=None)
    steps = count()

    def loop() -> None:
        clock.time += 1000
        with module.Progress("train", 10**9) as progress:
            for step in steps:
                clock.time += 7 if step % 2 else 5
                progress.update(step + 1, 64, None)

    def other() -> None:
        clock.time += 50

    found = alongside(module, loop, {"other": other}, repeats=3, warm=1, turns=2)
    assert found.seconds == {"loop": [6, 6, 6], "other": [50, 50, 50]}
    assert next(steps) == 8, "it stops once it has enough"
    assert module.Progress is None


def test_a_work_in_a_process_of_its_own_answers_with_its_numbers() -> None:
    assert measure.apart(measure.machine)["bytes"] > 1e6


def test_a_report_starts_a_new_table_where_the_columns_change(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report("name", "title")
    report.row(a=1, b_c="x")
    report.row(a=2, b_c=report.ratio("ratio", 1.234, "≤ 2"))
    report.row(d=3)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows == ["| a | b c |", "|---|---|", "| 1 | x |", "| 2 | **1.23** (target ≤ 2) |", "| d |", "|---|", "| 3 |"]
    assert report.ratios == {"ratio": 1.234}


def test_no_benchmark_is_over_300_lines() -> None:
    for file in (ROOT / "benchmarks").glob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 300, file
