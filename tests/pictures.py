"""Pictures for tests: written to a format and opened again, and the colours that become of them."""

import io

import numpy as np
from PIL import Image

from vqlcmd.images.loader import Recipe, prepare

RECIPE = Recipe(size=8, resize="box")
RED, WHITE = (255, 0, 0), (255, 255, 255)


def reopened(image: Image.Image, file_format: str, **options: object) -> Image.Image:
    """The image as a file of that format gives it back."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return Image.open(file)


def colours(image: Image.Image, recipe: Recipe = RECIPE) -> list[list[int]]:
    """The distinct colours of the prepared image, sorted."""
    return np.unique(prepare(image, recipe).reshape(3, -1).T, axis=0).tolist()
