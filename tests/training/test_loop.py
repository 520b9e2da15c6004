"""The loop: it learns, it resumes bit for bit, it stops at the first number that is none."""

import math
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.factory import CODES, METHODS, TOKENS, build, integers, perturb, sampling, train_settings
from vqlcmd.diffusion import losses
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import Diverged, Interrupted
from vqlcmd.runtime.resume import State
from vqlcmd.tokens.shards import Split
from vqlcmd.training.loop import train, update_average
from vqlcmd.training.optimizer import learning_rate

SPLIT = Split(integers(CODES, 10, TOKENS), integers(3, 10, seed=1), torch.arange(10))
STEPS = 14


def run(
    folder: Path,
    *,
    split: Split = SPLIT,
    steps: int = STEPS,
    stop: Callable[[], bool] = lambda: False,
    settings: dict[str, Any] | None = None,
    **overrides: Any,
) -> tuple[Any, Any, list[dict[str, float]]]:
    """A fresh method, trained or trained on: (method, its average, curves)."""
    method = build(classes=3, train=settings or {}, **overrides)
    state, chosen = State(folder), train_settings(**(settings or {}))
    with state:
        teacher, rows = train(method, split, split, chosen, steps=steps, seed=5, state=state, stop=stop)
    return method, teacher, rows


def after(steps: int) -> Callable[[], bool]:
    """Says stop at the given call."""
    calls = iter(range(1, 10**6))
    return lambda: next(calls) >= steps


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, one), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("name", METHODS)
def test_one_image_is_learned_and_sampled_back(tmp_path: Path, name: str) -> None:
    """By every method's average: samples are that image, and the bound has nothing to pay."""
    image = Split(torch.tensor([[1, 5, 5, 2]]), torch.tensor([2]), torch.tensor([0]))
    settings = {"batch_size": 16, "log_every": 50, "save_every": 1000}
    _, teacher, rows = run(tmp_path, split=image, steps=150, settings=settings, method=name)
    rng, label = CounterRNG(0, "test", torch.arange(50)), torch.full((50,), 2)
    right = (teacher.sample(label, rng, sampling(10)) == image.tokens).float().mean()
    bound = teacher.bound(image.tokens.expand(50, -1), label, rng, 20).mean()
    # MaskGIT's smoothed labels leave a tenth, of which the token itself has its share.
    sure = 0.9 + 0.1 / CODES if name == "maskgit" else 1.0
    assert float(right) == pytest.approx(sure, abs=0.08 if sure < 1 else 0)
    assert float(bound) == pytest.approx(-math.log(sure), abs=0.05)
    assert [row["step"] for row in rows] == [50, 100, 150]
    assert rows[2]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize(("name", "seed"), [("lcmd", 1), ("lcmd", 2), *((name, 0) for name in METHODS)])
def test_a_run_interrupted_and_resumed_equals_the_uninterrupted_one_bit_for_bit(
    tmp_path: Path, name: str, seed: int
) -> None:
    """With dropout on, and stops at random steps: on, before and after those that log and save.

    Chains are short, so that VQ-Diffusion has seen each of their steps often enough to draw by its history.
    """
    options: dict[str, Any] = {"method": name, "network": {"dropout": 0.2}, "discrete": {"timesteps": 3}}
    options["settings"] = {"batch_size": 8}
    method, teacher, rows = run(tmp_path / "whole", **options)
    assert name != "vq_diffusion" or (method.drawn > 10).all()
    stops = sorted(random.Random(seed).sample(range(1, STEPS), 3))
    done = 0
    for step in stops:
        with pytest.raises(Interrupted, match=f"stopped at step {step} of {STEPS}"):
            run(tmp_path / "parts", stop=after(step - done), **options)
        done = step
    method_again, teacher_again, rows_again = run(tmp_path / "parts", **options)
    assert_same(method_again, method)
    assert_same(teacher_again, teacher)
    assert rows_again == rows
    assert [row["step"] for row in rows] == [4, 8, 12, 14]


def test_a_killed_run_goes_on_from_its_last_save_and_ends_the_same(tmp_path: Path) -> None:
    _, teacher, rows = run(tmp_path / "whole")
    calls = iter(range(1, 100))

    def killed() -> bool:
        if next(calls) == 13:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", stop=killed)
    saved = State(tmp_path / "killed").load()
    assert saved is not None
    assert saved["step"] == 10
    _, teacher_again, rows_again = run(tmp_path / "killed")
    assert_same(teacher_again, teacher)
    assert rows_again == rows


def test_how_often_the_state_is_saved_changes_nothing(tmp_path: Path) -> None:
    _, teacher, rows = run(tmp_path / "often", settings={"save_every": 1})
    _, teacher_again, rows_again = run(tmp_path / "never", settings={"save_every": 1000})
    assert_same(teacher_again, teacher)
    assert rows_again == rows


def test_a_stop_after_the_last_step_is_no_interruption(tmp_path: Path) -> None:
    _, _, rows = run(tmp_path, stop=after(STEPS))
    assert rows[-1]["step"] == STEPS
    # And the saved state is that of a finished run.
    assert run(tmp_path)[2] == rows


def test_curves_are_means_over_the_steps_since_the_last_row(tmp_path: Path) -> None:
    _, _, rows = run(tmp_path / "one", settings={"log_every": 1})
    _, _, means = run(tmp_path / "four", settings={"log_every": 4})
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for name in ("loss", "rec", "diff", "cm", "ce", "grad_norm"):
        by_hand = [sum(row[name] for row in rows[start : start + 4]) for start in (0, 4, 8)]
        assert [row[name] for row in means[:3]] == pytest.approx([total / 4 for total in by_hand], rel=1e-5)
    assert means[-1]["loss"] == pytest.approx((rows[-1]["loss"] + rows[-2]["loss"]) / 2, rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_the_terms(tmp_path: Path) -> None:
    _, _, rows = run(tmp_path, steps=1, lambda_rec=2.0, lambda_diff=0.5, lambda_cm=0.0, lambda_ce=3.0)
    assert rows[0]["loss"] == pytest.approx(2 * rows[0]["rec"] + 0.5 * rows[0]["diff"] + 3 * rows[0]["ce"], rel=1e-5)
    assert "cm" not in rows[0]


@pytest.mark.parametrize("broken", [0, 2, 6])
def test_a_term_that_is_no_number_stops_the_run_and_is_named_with_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    calls, consistency = iter(range(100)), losses.consistency

    def sometimes(*logits: Tensor) -> Tensor:
        # The held-out loss, which has no gradient, is no step.
        return consistency(*logits) * (torch.nan if torch.is_grad_enabled() and next(calls) == broken else 1)

    monkeypatch.setattr(losses, "consistency", sometimes)
    with pytest.raises(Diverged, match=rf"^step {broken + 1}: loss, cm, grad_norm is not finite; "):
        run(tmp_path)
    saved = State(tmp_path).load()
    # What is saved, if anything, is from before.
    assert saved is None or saved["step"] <= broken


def test_the_learning_rate_warms_up_in_a_line_and_falls_along_half_a_cosine() -> None:
    settings = train_settings(warmup=10, final_lr_ratio=0.25)
    rates = [learning_rate(step, 110, settings) for step in range(111)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1
    assert rates[60] == pytest.approx(0.25 + 0.75 / 2)
    assert rates[110] == pytest.approx(0.25)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))


@pytest.mark.parametrize(("warmup", "steps"), [(0, 5), (5, 5), (10, 5)])
def test_the_learning_rate_stands_any_length_of_warm_up(warmup: int, steps: int) -> None:
    rates = [learning_rate(step, steps, train_settings(warmup=warmup)) for step in range(steps + 1)]
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[0] == (1 if warmup == 0 else 1 / warmup)


def test_the_learning_rate_reaches_the_optimizer(tmp_path: Path) -> None:
    _, _, rows = run(tmp_path, settings={"log_every": 1})
    settings = train_settings()
    exact = [settings.learning_rate * learning_rate(step, STEPS, settings) for step in range(1, STEPS + 1)]
    assert [row["learning_rate"] for row in rows] == pytest.approx(exact)


@pytest.mark.parametrize(("step", "decay", "d"), [(0, 0.9, 0.1), (8, 0.9, 0.5), (100, 0.9, 0.9), (8, 0.3, 0.3)])
def test_the_average_moves_by_its_formula(step: int, decay: float, d: float) -> None:
    """d teacher + (1 - d) method, d = min(decay, (1 + step) / (10 + step))."""
    method, teacher = perturb(build(classes=3)), build(classes=3)
    before = [parameter.detach().clone() for parameter in teacher.parameters()]
    update_average(teacher, method, step, decay)
    for old, ours, now in zip(before, method.parameters(), teacher.parameters(), strict=True):
        assert torch.allclose(now, d * old + (1 - d) * ours, atol=1e-6)


def test_weight_decay_shrinks_the_networks_matrices_and_neither_embeddings_nor_gains_nor_biases(tmp_path: Path) -> None:
    options = {"log_every": 1, "warmup": 0}
    plain = run(tmp_path / "plain", steps=1, settings={**options, "weight_decay": 0.0})[0].state_dict()
    decayed = run(tmp_path / "decayed", steps=1, settings={**options, "weight_decay": 5.0})[0].state_dict()
    fresh = build(classes=3).state_dict()
    for name in plain:
        if name.startswith("network.") and fresh[name].ndim > 1 and "classes" not in name:
            assert torch.allclose(decayed[name], plain[name] - 0.01 * 5 * fresh[name], atol=1e-6), name
        else:
            assert torch.equal(decayed[name], plain[name]), name
    assert (plain["embedding.weight"] != fresh["embedding.weight"]).any()


def test_gradients_are_clipped_and_logged_as_they_were(tmp_path: Path) -> None:
    """Adam does not see the scale of a gradient, only that one step's is not another's."""
    _, loose, rows = run(tmp_path / "loose", settings={"clip": 1e6, "log_every": 1})
    _, tight, clipped = run(tmp_path / "tight", settings={"clip": 1e-3, "log_every": 1})
    assert rows[0]["grad_norm"] == clipped[0]["grad_norm"] > 1
    assert not torch.equal(loose.embedding.weight, tight.embedding.weight)


def test_bf16_keeps_weights_average_and_curves_in_float32(tmp_path: Path) -> None:
    method, teacher, rows = run(tmp_path / "bf16", steps=4, settings={"precision": "bf16"})
    assert {value.dtype for model in (method, teacher) for value in model.state_dict().values()} == {torch.float32}
    _, _, exact = run(tmp_path / "float32", steps=4)
    assert rows[0]["loss"] != exact[0]["loss"]
    assert rows[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.03)
