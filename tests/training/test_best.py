"""The best state: that of the row with the lowest held-out loss, resumed or not; and samples that change nothing."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factory import METHODS, build, sampling, train_settings
from tests.training.test_averages import assert_equal
from tests.training.test_loop import SPLIT, STEPS, after
from vqlcmd.diffusion.method import Method
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import Interrupted
from vqlcmd.runtime.resume import State
from vqlcmd.tokens.shards import Split
from vqlcmd.training import curves
from vqlcmd.training.best import Best
from vqlcmd.training.loop import train

EMPTY = Split(SPLIT.tokens[:0], SPLIT.labels[:0], SPLIT.index[:0])
# The fourth of seven rows is the best one, the second the best of those before.
LOSSES = {2: 5.0, 4: 3.0, 6: 4.0, 8: 2.0, 10: 2.0, 12: 2.5, 14: math.inf}


@pytest.fixture(autouse=True)
def _known_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out losses that fall and rise, by the step of their row."""

    def closed(self: Any, done: int, learning_rate: float) -> None:
        self.rows.append({**self.gather(done), "step": done, "heldout_loss": LOSSES[done]})
        self._table = None

    monkeypatch.setattr(curves.Curves, "close_row", closed)


def kept_by(folder: Path, stops: tuple[int, ...] = (), heldout: Split = SPLIT, **settings: Any) -> dict[str, Any]:
    """What a run keeps, by name, and its teacher at each row as "row STEP"."""
    kept: dict[str, Any] = {}

    def keep(name: str, average: Method) -> None:
        kept[name] = {key: value.clone() for key, value in average.state_dict().items()}

    done = 0
    for end in (*stops, None):
        stop = (lambda: False) if end is None else after(end - done)
        done = end or done
        with State(folder) as state:
            chosen = train_settings(log_every=2, **settings)
            arguments: dict[str, Any] = {"steps": STEPS, "seed": 5, "state": state, "stop": stop, "keep": keep}
            try:
                keep("model", train(build(classes=3), SPLIT, heldout, chosen, **arguments)[0])
            except Interrupted:
                assert end is not None
    return kept


def test_the_best_state_is_the_average_of_the_row_with_the_lowest_held_out_loss(tmp_path: Path) -> None:
    kept = kept_by(tmp_path, snapshots=[4, 8, 10])
    assert_equal(kept["best"], kept["snapshots/8"])
    assert not torch.equal(kept["best"]["embedding.weight"], kept["model"]["embedding.weight"])


@pytest.mark.parametrize("stops", [(1,), (8,), (9,), (5, 11), (3, 8, 13)])
def test_an_interrupted_run_keeps_the_same_best_state(tmp_path: Path, stops: tuple[int, ...]) -> None:
    whole = kept_by(tmp_path / "whole")
    parts = kept_by(tmp_path / "parts", stops)
    for name in ("best", "model"):
        assert_equal(whole[name], parts[name])


def test_a_killed_run_forgets_the_best_state_of_the_steps_that_it_lost(tmp_path: Path) -> None:
    """Killed at step 9, after the best row; what is saved is of step 5, and the rows that follow are worse now."""
    calls = iter(range(1, 100))

    def killed() -> bool:
        if next(calls) == 10:
            raise KeyboardInterrupt
        return False

    with State(tmp_path) as state, pytest.raises(KeyboardInterrupt):
        train(
            build(classes=3), SPLIT, SPLIT, train_settings(log_every=2), steps=STEPS, seed=5, state=state, stop=killed
        )
    saved = State(tmp_path).load()
    assert saved is not None
    assert (saved["step"], saved["best"]["step"], saved["best"]["loss"]) == (5, 4, 3.0)


def test_whether_it_is_kept_changes_nothing_else(tmp_path: Path) -> None:
    kept, without = (kept_by(tmp_path / str(keep), keep_best=keep) for keep in (True, False))
    assert set(kept) - set(without) == {"best"}
    assert_equal(kept["model"], without["model"])


def test_a_run_may_begin_to_keep_it_where_it_was_interrupted(tmp_path: Path) -> None:
    chosen = train_settings(log_every=2, keep_best=False)
    with State(tmp_path) as state, pytest.raises(Interrupted):
        train(build(classes=3), SPLIT, SPLIT, chosen, steps=STEPS, seed=5, state=state, stop=after(9))
    assert_equal(kept_by(tmp_path)["best"], kept_by(tmp_path / "whole", snapshots=[10])["snapshots/10"])


def test_without_held_out_images_there_is_no_best_state() -> None:
    best = Best()
    best.consider(build(classes=3), {"step": 2, "heldout_loss": math.nan})
    assert best.method(build(classes=3)) is None


@pytest.mark.parametrize("name", METHODS)
def test_samples_on_the_way_change_no_number_and_are_those_of_the_average_at_that_step(
    tmp_path: Path, name: str
) -> None:
    """Bit for bit, with dropout on, interrupted or not; the last ones are those of the finished model."""
    options: dict[str, Any] = {"method": name, "network": {"dropout": 0.2}, "discrete": {"timesteps": 3}}
    label, drawn = torch.tensor([0, 1, 2]), dict[int, list[Tensor]]()

    def draw(average: Method) -> Tensor:
        return average.sample(label, CounterRNG(5, "sample", torch.arange(3)), sampling(3))

    def run(folder: str, every: int, stop: int | None = None) -> Method:
        with State(tmp_path / folder) as state:
            return train(
                build(classes=3, **options),
                SPLIT,
                SPLIT,
                train_settings(log_every=2, sample_every=every),
                steps=STEPS,
                seed=5,
                state=state,
                stop=after(stop) if stop else lambda: False,
                show=lambda step, average: drawn.setdefault(step, []).append(draw(average)),
            )[0]

    plain = run("plain", 0)
    assert not drawn
    watched = run("watched", 4)
    assert sorted(drawn) == [4, 8, 12, 14]
    with pytest.raises(Interrupted):
        run("parts", 4, stop=6)
    resumed = run("parts", 4)
    for other in (watched, resumed):
        assert_equal(plain.state_dict(), other.state_dict())
    assert all(torch.equal(one, other) for one, other in drawn.values())
    assert torch.equal(drawn[STEPS][0], draw(plain))
