"""What the page draws is what the Python interface draws; costs are those really paid; stopping stops."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factory import METHODS
from tests.page.models import CODES, NAMES, SIDE, TOKENS, saved
from vqlcmd.generator import Generator
from vqlcmd.page.jobs import Stopped
from vqlcmd.page.models import drawing
from vqlcmd.page.models.drawing import Onlooker
from vqlcmd.runtime.errors import ConfigError

CLASSES = [0, 1, 2, 0, 1]
every = pytest.mark.parametrize("name", METHODS)


def draw(model: Generator, onlooker: Onlooker | None = None, **how: Any) -> drawing.Drawn:
    return drawing.sample(model, CLASSES, onlooker or Onlooker(TOKENS), **{"seed": 3, "steps": 4, **how})


@every
@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_images_and_network_calls_are_those_of_the_python_interface(tmp_path: Path, name: str, guidance: float) -> None:
    model = saved(tmp_path, method=name)
    drawn = draw(model, guidance=guidance)
    assert torch.equal(drawn.images, model.sample(CLASSES, seed=3, steps=4, guidance=guidance))
    assert drawn.nfe == model.method.nfe(model.sampling(steps=4, guidance=guidance))
    assert drawn.cost().startswith("**5 images** · ")
    assert drawn.cost().endswith(f" s · {drawn.nfe:g} network calls an image")


@every
def test_beliefs_are_tokens_of_every_image_whatever_the_batch(tmp_path: Path, name: str) -> None:
    model = saved(tmp_path, method=name)
    beliefs = draw(model).beliefs
    assert all(belief.shape == (5, TOKENS) and -1 <= belief.min() <= belief.max() < CODES for belief in beliefs)
    model.about["sampling"]["batch_size"] = 2
    assert all(torch.equal(*pair) for pair in zip(beliefs, draw(model).beliefs, strict=True))


def test_the_last_belief_of_the_continuous_model_is_what_it_answers(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd")
    drawn = draw(model)
    assert len(drawn.beliefs) == 5
    assert torch.equal(drawing.picture(model, drawn.beliefs[-1]), drawn.images)
    assert not torch.equal(drawing.picture(model, drawn.beliefs[0]), drawn.images)


def test_a_model_that_goes_place_by_place_believes_what_it_has_drawn_so_far(tmp_path: Path) -> None:
    model = saved(tmp_path, method="autoregressive")
    drawn = draw(model)
    whole = drawn.beliefs[-1]
    for place, belief in enumerate(drawn.beliefs):
        assert torch.equal(belief[:, :place], whole[:, :place])
        assert (belief[:, place:] == -1).all()
    # A decoder looks at more than a patch, but no further than the grey ones go: the first patch is the images' own.
    assert (drawing.picture(model, whole)[:, :, -4:, -4:] == drawing.GREY).all()


def test_frames_go_from_noise_to_the_images_and_are_not_too_many(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd")
    drawn = draw(model, steps=40)
    shares, images = zip(*drawing.frames(model, drawn.first(2), most=8), strict=True)
    assert len(shares) == 8
    assert shares[0] == 1
    assert shares[-1] == 0
    assert list(shares) == sorted(shares, reverse=True)
    assert all(each.shape == (2, 3, SIDE, SIDE) for each in images)
    assert torch.equal(images[-1], drawn.images[:2])
    assert len(drawing.frames(model, draw(model, steps=1), most=8)) == 3


@every
def test_stop_ends_the_sampling_at_the_next_prediction(tmp_path: Path, name: str) -> None:
    model, made = saved(tmp_path, method=name), []
    handle: Any = model.method.network
    handle.register_forward_pre_hook(lambda *_: made.append(1))
    onlooker = Onlooker(TOKENS, stopped=lambda: len(made) > 2)
    with pytest.raises(Stopped, match="stopped after 2 predictions"):
        draw(model, onlooker)
    assert len(made) == 3
    assert len(draw(model).images) == 5, "and it can be asked again"


@every
def test_progress_counts_every_prediction_and_never_more_than_was_announced(tmp_path: Path, name: str) -> None:
    model, told = saved(tmp_path, method=name), []
    draw(model, Onlooker(TOKENS, report=told.append))
    assert told == list(range(1, len(told) + 1))
    assert len(told) <= drawing.predictions(model, 5, seed=3, steps=4)


def test_classes_come_in_turn_or_all_the_same(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd")
    assert drawing.labels(model, None, 5) == [0, 1, 2, 0, 1]
    assert drawing.labels(model, 2, 3) == [2, 2, 2]
    assert len(model.class_names) == len(NAMES)


def test_a_model_without_classes_draws_a_number_of_images(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd", names=())
    count = drawing.labels(model, None, 3)
    assert count == 3
    assert len(drawing.sample(model, count, Onlooker(TOKENS), seed=0, steps=2).images) == 3


def test_what_the_model_cannot_do_is_one_line_before_anything_is_drawn(tmp_path: Path) -> None:
    model, told = saved(tmp_path, method="lcmd"), []
    with pytest.raises(ConfigError, match="steps is 0"):
        draw(model, Onlooker(TOKENS, report=told.append), steps=0)
    assert not told


def test_grey_stands_where_nothing_is_said(tmp_path: Path) -> None:
    model = saved(tmp_path, method="lcmd")
    tokens: Tensor = torch.arange(TOKENS)[None].clone()
    whole = drawing.picture(model, tokens)
    tokens[0, 5] = -1
    assert (drawing.picture(model, tokens)[0, :, 4:8, 4:8] == drawing.GREY).all()
    assert (whole[0, :, 4:8, 4:8] != drawing.GREY).any()
