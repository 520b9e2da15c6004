"""Several moving averages in one run, and what is kept of the first on the way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factory import build, params, train_settings
from tests.training.test_loop import SPLIT, STEPS, after, run
from vqlcmd.diffusion.method import Method
from vqlcmd.runtime.errors import Interrupted
from vqlcmd.runtime.resume import State
from vqlcmd.training.loop import train


def kept_by(folder: Path, stops: tuple[int, ...] = (), **options: Any) -> dict[str, dict[str, Tensor]]:
    """The weights that a run keeps, by name, with interruptions at `stops`; its teacher as "model"."""
    kept: dict[str, dict[str, Tensor]] = {}

    def keep(name: str, average: Method) -> None:
        kept[name] = {key: value.clone() for key, value in average.state_dict().items()}

    overrides = {"train": options, "train_steps": STEPS}
    settings = params(**overrides).train
    done = 0
    for end in (*stops, None):
        stop = (lambda: False) if end is None else after(end - done)
        done = end or done
        with State(folder) as state:
            arguments: dict[str, Any] = {"steps": STEPS, "seed": 5, "state": state, "stop": stop, "keep": keep}
            try:
                keep("model", train(build(classes=3, **overrides), SPLIT, SPLIT, settings, **arguments)[0])
            except Interrupted:
                assert end is not None
    return kept


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_the_first_of_several_averages_trains_as_if_it_were_alone(tmp_path: Path) -> None:
    alone = run(tmp_path / "alone", settings={"ema": 0.9})
    several = run(tmp_path / "several", settings={"ema": [0.9, 0.5, 0.0]})
    assert_equal(alone[1].state_dict(), several[1].state_dict())
    assert alone[2] == several[2]


def test_another_average_is_that_of_its_own_decay(tmp_path: Path) -> None:
    """Without consistency nothing depends on the teacher, so that it equals the teacher of a run with that decay."""
    without = {"lambda_cm": 0.0, "steps": STEPS}
    kept: dict[str, Any] = {}
    method, settings = build(classes=3, lambda_cm=0.0), train_settings(ema=[0.9, 0.5])
    with State(tmp_path / "several") as state:
        train(method, SPLIT, SPLIT, settings, steps=STEPS, seed=5, state=state, keep=kept.__setitem__)
    _, teacher, _ = run(tmp_path / "alone", settings={"ema": 0.5}, **without)
    assert list(kept) == ["ema-0.5", "best"]
    assert_equal(kept["ema-0.5"].state_dict(), teacher.state_dict())


def test_an_interrupted_run_keeps_the_same_as_a_whole_one(tmp_path: Path) -> None:
    """Stops at, before and after the snapshots, one of which is the last step."""
    options: dict[str, Any] = {"snapshots": [3, 7, 14], "ema": [0.9, 0.99]}
    whole = kept_by(tmp_path / "whole", **options)
    assert set(whole) == {"snapshots/3", "snapshots/7", "snapshots/14", "ema-0.99", "best", "model"}
    parts = kept_by(tmp_path / "parts", stops=(2, 7, 9), **options)
    assert set(parts) == set(whole)
    for name, weights in whole.items():
        assert_equal(weights, parts[name])
    assert_equal(whole["snapshots/14"], whole["model"])
    assert not torch.equal(whole["snapshots/7"]["embedding.weight"], whole["model"]["embedding.weight"])


def test_a_snapshot_is_the_average_that_the_state_of_its_step_holds(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, stop=after(7), settings={"ema": [0.9, 0.99]})
    saved = State(tmp_path).load()
    assert saved is not None
    assert_equal(saved["ema-0.9"], kept_by(tmp_path / "whole", snapshots=[7], ema=[0.9, 0.99])["snapshots/7"])


@pytest.mark.parametrize(
    ("train_changes", "message"),
    [
        ({"ema": [0.9, 0.9]}, r"ema \[0.9, 0.9\] must be different decays"),
        ({"ema": []}, "at least 1 item"),
        ({"ema": 1.0}, "less than 1"),
        ({"snapshots": [5, 11]}, r"train.snapshots \[5, 11\] go beyond train_steps"),
        ({"snapshots": [0]}, "greater than 0"),
    ],
)
def test_decays_and_snapshots_that_cannot_be_are_refused(train_changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        params(train=train_changes)
