"""What can be set of a model comes from its method; what has no effect is not offered."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from tests.factory import METHODS
from tests.page.models import saved
from vqlcmd import methods
from vqlcmd.page.description import Setting, names_of_settings
from vqlcmd.page.models.describing import describe
from vqlcmd.page.models.settings import settings, varied
from vqlcmd.params.types import Section
from vqlcmd.runtime.errors import ConfigError


def offered(folder: Path, **overrides: Any) -> dict[str, Setting]:
    return {each.name: each for each in settings(saved(folder, **overrides))}


@pytest.mark.parametrize("name", METHODS)
def test_every_knob_of_a_method_is_there_with_its_words_and_its_value_in_training(tmp_path: Path, name: str) -> None:
    model = saved(tmp_path, method=name)
    found = {each.name: each for each in settings(model)}
    for knob, field in methods.method_class(name).knobs.model_fields.items():
        assert found[knob].usual == model.sampling().own[knob]
        assert found[knob].about == field.description
    for each in found.values():
        assert model.sampling(**{each.name: each.usual}) == model.sampling(), "the usual values change nothing"


def test_knobs_of_every_kind_become_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Knobs(Section):
        strength: Annotated[float, Field(gt=0, le=1, description="How strong.")]
        rounds: Annotated[int, Field(ge=2)]
        careful: bool
        order: Literal["raster", "random"]

    model = saved(tmp_path, method="lcmd")
    own = {"strength": 0.5, "rounds": 3, "careful": False, "order": "raster"}
    monkeypatch.setattr(type(model.method), "knobs", Knobs)
    model.about["sampling"]["own"] = own
    found = {each.name: each for each in settings(model)}
    assert (found["strength"].low, found["strength"].high, found["strength"].about) == (0, 1, "How strong.")
    assert (found["rounds"].low, found["rounds"].high) == (2, None)
    assert found["order"].choices == ("raster", "random")
    assert varied(model, "careful", "true, false") == [{"careful": True}, {"careful": False}]
    assert varied(model, "order", "random") == [{"order": "random"}]
    with pytest.raises(ConfigError, match="careful is 'perhaps', but must be true or false"):
        varied(model, "careful", "perhaps")


def test_what_changes_nothing_is_not_offered(tmp_path: Path) -> None:
    """As many steps as tokens, one sampler, no classes, no null class."""
    assert "steps" not in offered(tmp_path / "a", method="autoregressive")
    assert "sampler" not in offered(tmp_path / "b", method="vq_diffusion")
    assert "guidance" not in offered(tmp_path / "c", method="lcmd", names=())
    assert "guidance" not in offered(tmp_path / "d", method="lcmd", train={"class_drop": 0.0})
    assert {"steps", "sampler", "guidance"} <= set(offered(tmp_path / "e", method="lcmd"))


def test_a_chain_offers_no_more_steps_than_it_has(tmp_path: Path) -> None:
    assert offered(tmp_path / "a", method="d3pm", sample_steps=10, discrete={"timesteps": 20})["steps"].high == 20
    assert offered(tmp_path / "b", method="lcmd")["steps"].high == 200
    assert offered(tmp_path / "c", method="lcmd", sample_steps=300)["steps"].high == 300


def test_values_are_words_with_commas_between(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd")
    assert varied(model, "guidance", "0, 1.5,,4 ") == [{"guidance": 0.0}, {"guidance": 1.5}, {"guidance": 4.0}]
    assert varied(model, "steps", "5") == [{"steps": 5}]
    assert varied(model, None, "anything") == [{}]


@pytest.mark.parametrize(
    ("vary", "values", "says"),
    [
        ("temperature", "1", "temperature is nothing that can be set of lcmd, which has steps, "),
        ("steps", "2.5", "steps is '2.5', but must be a whole number"),
        ("steps", "0", "steps is 0, but must be 1 or more"),
        ("guidance", "much", "guidance is 'much', but must be a number"),
        ("guidance", "nan", "guidance is nan"),
        ("sampler", "best", "sampler best is not one of LCMD's"),
        ("steps", " , ", "steps needs values"),
    ],
)
def test_a_value_that_a_model_does_not_take_is_one_line(tmp_path: Path, vary: str, values: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        varied(saved(tmp_path, method="lcmd"), vary, values)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_names_of_several_models_are_put_together(tmp_path: Path) -> None:
    models = [
        describe(saved(tmp_path / name, method=name), str(tmp_path / name)) for name in ("autoregressive", "maskgit")
    ]
    assert names_of_settings(models)[0] == "guidance"
    assert {"steps", "temperature"} <= set(names_of_settings(models))
