"""A picture, a region painted over in it, and what the model draws there.

Shapes: S x S pixels of the model's images; H x W of the canvas on which they are painted over.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqlcmd.generator import Generator
from vqlcmd.generator import recipe as recipe_of
from vqlcmd.images.crops import crop_views
from vqlcmd.images.rgb import read_picture
from vqlcmd.page.models import drawing
from vqlcmd.page.models.drawing import Drawn, Onlooker
from vqlcmd.runtime.errors import ConfigError


def prepared(model: Generator, path: Path) -> Tensor:
    """The picture in a file as the model sees it, uint8 (3, S, S): cropped and resized like the training images.

    Raises DataError, in one line, if the file is damaged, too large or no picture; the checks are those of tokenizing.
    """
    recipe = recipe_of(model.about)
    return torch.from_numpy(crop_views(read_picture(path, recipe.background), recipe, 0)[0])


def hole(layers: Sequence[np.ndarray], side: tuple[int, int]) -> Tensor:
    """The pixels of the model's image of which strokes on the layers (H, W, 4) cover at least half: bool `side`."""
    if not layers:
        return torch.zeros(side, dtype=torch.bool)
    painted = np.maximum.reduce([layer[..., 3] for layer in layers]) > 0
    covered = Image.fromarray(painted.astype(np.uint8) * 255).resize((side[1], side[0]), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(covered) > 127)


def fillings(
    model: Generator,
    image: Tensor | None,
    layers: Sequence[np.ndarray],
    class_: int | None,
    count: int,
    onlooker: Onlooker,
    **how: Any,
) -> tuple[Drawn, Tensor]:
    """`count` results, and the kept part of the image, with the rest grey.

    Without a class there is nothing to guide to, so there is no guidance. Raises ConfigError without an image or
    without strokes.
    """
    if image is None:
        raise ConfigError("there is no picture yet: upload one, or sample one")
    open_ = hole(layers, (image.shape[1], image.shape[2]))
    if not open_.any():
        raise ConfigError("nothing is brushed out yet: paint over what is to be drawn anew")
    if class_ is None:
        how["guidance"] = None
    return drawing.fill(model, image, open_, class_, count, onlooker, **how)
