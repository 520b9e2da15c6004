"""Loggers: none needs nothing, an absent package is one line, each gets the scalars of every row once."""

import importlib
import io
import math
import sys
import types
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import pytest
from PIL import Image

from vqlcmd.loggers import LOGGERS
from vqlcmd.params import Train
from vqlcmd.runtime.errors import ConfigError

ROWS = [{"step": 50, "loss": 2.0, "heldout_loss": math.nan}, {"step": 100, "loss": 1.0, "heldout_loss": math.nan}]


def test_params_yaml_can_name_every_logger() -> None:
    assert get_args(Train.model_fields["logger"].annotation) == tuple(LOGGERS)


def test_none_writes_nothing(tmp_path: Path) -> None:
    with LOGGERS["none"](tmp_path / "run", {}) as log:
        log.row(ROWS[0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_an_absent_package_is_one_line_that_names_the_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"train\.logger is {name}, .*pip install 'vqlcmd\[{name}\]'") as caught:
        LOGGERS[name](tmp_path, {}).__enter__()
    assert "\n" not in str(caught.value)


def test_tensorboard_holds_each_row_once_after_a_run_that_lost_some(tmp_path: Path) -> None:
    """The first writer dies after step 100; the run goes on from its state of step 50."""
    pytest.importorskip("tensorboard")
    for rows in (ROWS, [ROWS[0], {"step": 100, "loss": 0.5}, {"step": 150, "loss": 0.25}]):
        with LOGGERS["tensorboard"](tmp_path / "run", {}) as log:
            for row in rows:
                log.row(row)
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(tmp_path / "run")).Reload()
    assert found.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(50, 2), (100, 0.5), (150, 0.25)]


def test_tensorboard_holds_the_pictures_too(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    shown = picture(tmp_path / "a.png")
    with LOGGERS["tensorboard"](tmp_path / "run", {}) as log:
        log.picture("samples", 30, shown)
        log.row(ROWS[0])
    events = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    found = events.EventAccumulator(str(tmp_path / "run")).Reload()
    (image,) = found.Images("samples")
    assert (image.step, image.width, image.height) == (30, 20, 10)
    with Image.open(io.BytesIO(image.encoded_image_string)) as held:
        assert held.convert("RGB").getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_others_get_pictures_as_theirs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = module(name, **{each: mock.MagicMock() for each in ("init", "log", "finish", "Image")})
    monkeypatch.setitem(sys.modules, name, fake)
    shown = picture(tmp_path / "a.png")
    with LOGGERS[name](tmp_path / "abc", {}) as log:
        log.picture("samples", 30, shown)
    fake.Image.assert_called_once_with(str(shown))
    logged = fake.init.return_value.__enter__.return_value.log if name == "wandb" else fake.log
    logged.assert_called_once_with({"samples": fake.Image.return_value}, step=30)


def picture(path: Path) -> Path:
    Image.new("RGB", (20, 10), "red").save(path)
    return path


def test_wandb_gets_a_run_that_can_go_on_and_its_scalars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, init = mock.MagicMock(), mock.MagicMock()
    init.return_value.__enter__.return_value = run
    monkeypatch.setitem(sys.modules, "wandb", module("wandb", init=init))
    with LOGGERS["wandb"](tmp_path / "abc", {"seed": 1}) as log:
        for row in ROWS:
            log.row(row)
    assert init.call_args.kwargs["id"] == "abc"
    assert init.call_args.kwargs["resume"] == "allow"
    assert init.call_args.kwargs["config"] == {"seed": 1}
    assert run.log.call_args_list == [mock.call({"loss": 2.0}, step=50), mock.call({"loss": 1.0}, step=100)]
    assert init.return_value.__exit__.called


def test_trackio_gets_a_run_that_can_go_on_and_is_finished_when_training_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = module("trackio", init=mock.MagicMock(), log=mock.MagicMock(), finish=mock.MagicMock())
    monkeypatch.setitem(sys.modules, "trackio", fake)
    training = LOGGERS["trackio"](tmp_path / "abc", {"seed": 1})
    training.__enter__().row(ROWS[0])
    error = RuntimeError("training failed")
    assert not training.__exit__(RuntimeError, error, None)
    assert fake.init.call_args.kwargs == {"project": "vqlcmd", "name": "abc", "resume": "allow", "config": {"seed": 1}}
    assert fake.log.call_args_list == [mock.call({"loss": 2.0}, step=50)]
    assert fake.finish.called


def module(name: str, **members: Any) -> Any:
    made = types.ModuleType(name)
    vars(made).update(members)
    return made
