"""Crop views of one size from an upright image, by the recipes that published models were trained with.

Shapes: an image of H x W pixels becomes V crop views of S x S, in 3 channels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from PIL import Image

from vqlcmd.rng import CounterRNG

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's filters, which average over all pixels that a new one covers. `bilinear_no_antialias` is not among them."""
MARGIN = 1.1
"""For ten_crop: the side of the square that views are cut from, as a multiple of a view's side."""


Resize = Literal["bilinear", "bicubic", "box", "lanczos", "bilinear_no_antialias"]
Crop = Literal["center", "random", "adm", "ten_crop"]


@dataclass(frozen=True)
class Recipe:
    """How an image becomes crop views of `size` x `size` pixels. `adm` and `ten_crop` do not use `resize`."""

    size: int
    resize: Resize
    crop: Crop = "center"
    background: str = "white"
    """The colour behind transparent pixels: a name, or #rrggbb."""

    @classmethod
    def of(cls, *, size: int, resize: Resize, crop: Crop, background: str, **_: object) -> "Recipe":
        """The recipe that the section `images` of params.yaml describes; other keys of the section are ignored."""
        return cls(size, resize, crop, background)

    @property
    def views(self) -> int:
        """The number of crop views per image."""
        return 10 if self.crop == "ten_crop" else 1

    def one_view(self) -> "Recipe":
        """A recipe with one view per image, for code that counts images: `ten_crop` becomes `adm`."""
        return replace(self, crop="adm") if self.crop == "ten_crop" else self

    def deterministic(self) -> "Recipe":
        """A recipe for an image without a position in a source: `random` becomes `center`, `ten_crop` becomes `adm`."""
        return replace(self, crop="center") if self.crop == "random" else self.one_view()


def crop_views(image: Image.Image, recipe: Recipe, position: int) -> np.ndarray:
    """The crop views of an RGB image, uint8 [V, 3, S, S].

    A random crop depends on `position`, the image's in its source.
    """
    cut = np.stack(CROPS[recipe.crop](image, recipe, position))
    assert cut.shape == (recipe.views, recipe.size, recipe.size, 3), (cut.shape, recipe)
    return np.ascontiguousarray(cut.transpose(0, 3, 1, 2))


def _center(image: Image.Image, recipe: Recipe, position: int) -> list[np.ndarray]:
    """Short side resized to S, then a centre crop at whole pixels: VQGAN (taming-transformers), Halton-MaskGIT."""
    pixels = _resized(image, _sides(image, recipe.size), recipe.resize)
    return [_cut(pixels, recipe.size, *(round((side - recipe.size) / 2) for side in pixels.shape[:2]))]


def _random(image: Image.Image, recipe: Recipe, position: int) -> list[np.ndarray]:
    """Short side resized to S, then a square at a random place along the long side: VQGAN's training on ImageNet."""
    pixels = _resized(image, _sides(image, recipe.size), recipe.resize)
    drawn = CounterRNG(0, "crop", torch.tensor([position])).uniform("corner", 2)[0].tolist()
    free = (side - recipe.size + 1 for side in pixels.shape[:2])
    return [_cut(pixels, recipe.size, *(int(u * count) for u, count in zip(drawn, free, strict=True)))]


def _adm(image: Image.Image, recipe: Recipe, position: int) -> list[np.ndarray]:
    """The crop of ADM (guided-diffusion), which DiT, MAR and the usual reference batches of ImageNet use."""
    return [_adm_square(image, recipe.size)]


def _ten_crop(image: Image.Image, recipe: Recipe, position: int) -> list[np.ndarray]:
    """Corners and centre of an ADM crop with a side 10 % larger, then those of its mirror image: LlamaGen, RAR.

    In the order of torchvision's TenCrop: upper left, upper right, lower left, lower right, middle.
    """
    wide = _adm_square(image, int(recipe.size * MARGIN))
    end = len(wide) - recipe.size
    corners = [(0, 0), (0, end), (end, 0), (end, end), (round(end / 2), round(end / 2))]
    return [_cut(pixels, recipe.size, *corner) for pixels in (wide, wide[:, ::-1]) for corner in corners]


CROPS: dict[str, Callable[[Image.Image, Recipe, int], list[np.ndarray]]] = {
    "center": _center,
    "random": _random,
    "adm": _adm,
    "ten_crop": _ten_crop,
}


def _adm_square(image: Image.Image, size: int) -> np.ndarray:
    """ADM's crop: halved with a box filter while twice too large, resized bicubically, then cropped to its centre.

    Where the centre falls on half a pixel, the offset is rounded down.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    pixels = _resized(image, (round(image.width * scale), round(image.height * scale)), "bicubic")
    return _cut(pixels, size, *((side - size) // 2 for side in pixels.shape[:2]))


def _sides(image: Image.Image, short: int) -> tuple[int, int]:
    width, height = (round(side * short / min(image.size)) for side in image.size)
    return width, height


def _resized(image: Image.Image, sides: tuple[int, int], how: str) -> np.ndarray:
    """The image resized to `sides` = (W, H), as uint8 [H, W, 3]."""
    if how in FILTERS:
        return np.asarray(image.resize(sides, FILTERS[how]))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    pixels = torch.nn.functional.interpolate(pixels, sides[::-1], mode="bilinear", align_corners=False, antialias=False)
    # Rounds halves up, as OpenCV does.
    return (pixels[0] + 0.5).floor().byte().permute(1, 2, 0).numpy()


def _cut(pixels: np.ndarray, size: int, top: int, left: int) -> np.ndarray:
    return pixels[top : top + size, left : left + size]
