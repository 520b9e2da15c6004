"""What is written while a run goes on, and the loss on images that it never sees."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.factory import CODES, METHODS, TOKENS, build, integers, made, train_settings
from tests.training.test_loop import SPLIT, STEPS, after, run
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import Interrupted
from vqlcmd.runtime.resume import State
from vqlcmd.tokens.shards import Split
from vqlcmd.training.curves import Curves
from vqlcmd.training.loop import train

NONE = Split(integers(CODES, 0, TOKENS), integers(3, 0), torch.arange(0))


def heldout_loss(teacher: Any, heldout: Split, *, at_once: int, batch_size: int = 4) -> float:
    curves = Curves(teacher, SPLIT, heldout, seed=0, batch_size=batch_size, at_once=at_once)
    curves.add(torch.ones(1 + len(teacher.weights)), torch.ones(()))
    curves.close_row(1, 0.1)
    return curves.rows[0]["heldout_loss"]


@pytest.mark.parametrize("name", METHODS)
def test_the_heldout_loss_has_the_same_noise_at_every_row_and_in_pieces_of_any_size(name: str) -> None:
    teacher = made(name)
    whole = heldout_loss(teacher, SPLIT, at_once=4)
    assert heldout_loss(teacher, SPLIT, at_once=4) == whole
    assert heldout_loss(teacher, SPLIT, at_once=3) == pytest.approx(whole, rel=1e-5)
    assert heldout_loss(teacher, NONE, at_once=4) != whole


def test_the_heldout_loss_is_the_training_loss_of_the_average() -> None:
    """Of one batch that is as large as training's: by hand, as the training loop has it."""
    teacher = made("lcmd")
    few = Split(SPLIT.tokens[:4], SPLIT.labels[:4], SPLIT.index[:4])
    with torch.no_grad():
        terms = teacher(few.tokens.long(), few.labels, CounterRNG(0, "heldout", torch.arange(4)), teacher)
    by_hand = sum(teacher.weights[term] * float(values.mean()) for term, values in terms.items())
    assert heldout_loss(teacher, few, at_once=4) == pytest.approx(by_hand, rel=1e-5)


def test_times_are_spread_evenly_also_where_fewer_images_than_a_batch_are_held_out() -> None:
    one = Split(SPLIT.tokens[:1], SPLIT.labels[:1], SPLIT.index[:1])
    seen: list[torch.Tensor] = []
    teacher = made("d3pm")
    steps_at = teacher.steps_at
    teacher.steps_at = lambda u: (seen.append(u), steps_at(u))[1]
    heldout_loss(teacher, one, at_once=8, batch_size=4)
    assert [sorted((u * 4).ceil().tolist()) for u in seen if len(u) == 4] == [[1, 2, 3, 4]]


def test_without_heldout_images_the_loss_is_no_number() -> None:
    assert math.isnan(heldout_loss(made("lcmd"), NONE, at_once=4))


def test_the_heldout_loss_changes_no_other_column(tmp_path: Path) -> None:
    """It draws from no global random state, and leaves the method and its average as they are."""
    settings, found = train_settings(), []
    for heldout in (SPLIT, NONE):
        with State(tmp_path / str(len(heldout))) as state:
            method = build(classes=3, network={"dropout": 0.3})
            _, rows = train(method, SPLIT, heldout, settings, steps=STEPS, seed=5, state=state)
        found.append([{name: value for name, value in row.items() if name != "heldout_loss"} for row in rows])
    assert found[0] == found[1]


def test_rows_are_shown_as_they_come_and_all_of_them_when_a_run_goes_on(tmp_path: Path) -> None:
    shown: list[list[float]] = []

    def go(stop: int | None) -> None:
        asks = (lambda: False) if stop is None else after(stop)
        with State(tmp_path) as state:
            method, settings = build(classes=3), train_settings()
            options: dict[str, Any] = {"steps": STEPS, "seed": 5, "state": state, "stop": asks}
            watch = lambda rows: shown.append([row["step"] for row in rows])  # noqa: E731
            train(method, SPLIT, SPLIT, settings, watch=watch, **options)

    with pytest.raises(Interrupted):
        go(9)
    assert shown == [[4], [4, 8]]
    go(None)
    assert shown[2:] == [[4, 8], [4, 8, 12], [4, 8, 12, 14]]
    assert [row["step"] for row in run(tmp_path / "whole")[2]] == shown[-1]
