"""Distances of known things: what a network's Fréchet and kernel distance say of images that were spoilt on purpose.

`python -m benchmarks.known --count 500` takes crops of scikit-learn's two photographs, whose two classes they are;
`--folder FOLDER` takes pictures of a folder instead, whose sub-folders are the classes.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from vqlcmd.evaluation.extractors import Extractor, extractor
from vqlcmd.evaluation.frechet import frechet_distance
from vqlcmd.evaluation.metrics.kid import kernel_distance
from vqlcmd.evaluation.moments import Moments

SIDE = 64
SEED = 0
Spoil = Callable[[Image.Image, np.random.Generator], Image.Image]


def jpeg(quality: int) -> Spoil:
    """Through a JPEG file."""

    def through(image: Image.Image, _: np.random.Generator) -> Image.Image:
        file = io.BytesIO()
        image.save(file, format="JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return through


def blur(pixels: float) -> Spoil:
    """Convolved with a Gaussian of this standard deviation."""
    return lambda image, _: image.filter(ImageFilter.GaussianBlur(pixels))


def noise(levels: float) -> Spoil:
    """With normal noise of this standard deviation, out of 255."""

    def noisy(image: Image.Image, draws: np.random.Generator) -> Image.Image:
        pixels = np.asarray(image)
        values = pixels + draws.normal(0, levels, pixels.shape)
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8))

    return noisy


SPOILT = {
    "JPEG, quality 50": jpeg(50),
    "JPEG, quality 10": jpeg(10),
    "blur, 1 pixel": blur(1),
    "blur, 2 pixels": blur(2),
    "noise, 10 of 255": noise(10),
    "noise, 40 of 255": noise(40),
}
"""Each kind mild, then strong."""


def crops(draws: np.random.Generator, count: int) -> tuple[list[Image.Image], list[int]]:
    """Random squares of the two photographs, of 96 to 192 pixels, at 64; and which photograph each is of."""
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    found, labels = [], draws.integers(len(photographs), size=count).tolist()
    for label in labels:
        side = int(draws.integers(96, 193))
        left, top = (int(draws.integers(0, room - side + 1)) for room in photographs[label].size)
        square = photographs[label].crop((left, top, left + side, top + side))
        found.append(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return found, labels


def pictures(folder: Path, draws: np.random.Generator) -> tuple[list[Image.Image], list[int]]:
    """All PNG files, shuffled, on white at 64 pixels; and the number of the sub-folder that each is in."""
    files = sorted(folder.rglob("*.png"))
    classes = sorted({file.parent for file in files})
    files = [files[index] for index in draws.permutation(len(files))]
    found = []
    for file in files:
        opened = Image.open(file, formats=["PNG"]).convert("RGBA")
        white = Image.new("RGBA", opened.size, "white")
        laid = Image.alpha_composite(white, opened).convert("RGB")
        found.append(laid.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return found, [classes.index(file.parent) for file in files]


def sets(count: int, folder: Path | None = None) -> dict[str, list[Image.Image]]:
    """The reference, and what is compared with it, `count` images each: none but the spoilt ones share an image."""
    draws = np.random.default_rng(SEED)
    images, labels = crops(draws, 5 * count) if folder is None else pictures(folder, draws)
    reference, other, rest = images[:count], images[count : 2 * count], range(2 * count, len(images))
    largest = np.bincount(labels).argmax()
    alone = [images[index] for index in rest if labels[index] == largest][:count]
    assert len(alone) == len(other) == count, (len(images), len(alone), count)
    spoilt = {name: [spoil(image, draws) for image in other] for name, spoil in SPOILT.items()}
    return {"reference": reference, "other images": other, **spoilt, "one class only": alone}


def measure(network: Extractor, found: dict[str, list[Image.Image]]) -> dict[str, tuple[float, float]]:
    """{set: Fréchet and kernel distance to the reference}."""
    features = {name: _features(network, images) for name, images in found.items()}
    real = features.pop("reference")
    return {
        name: (
            frechet_distance(_statistics(each), _statistics(real)),
            kernel_distance(each, real, subsets=20, subset_size=len(real) // 2)[0],
        )
        for name, each in features.items()
    }


def _features(network: Extractor, images: list[Image.Image]) -> Tensor:
    pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
    return network.collect(pixels.split(50)).features


def _statistics(features: Tensor):
    moments = Moments()
    moments.add(features)
    found = moments.statistics()
    assert found is not None
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", default="efficientnet")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    found = measure(extractor(given.features), sets(given.count, given.folder))
    print(f"| {given.count} images against {given.count} | FID | KID |\n|---|---|---|")
    for name, (fid, kid) in found.items():
        print(f"| {name} | {fid:.2f} | {kid:.5f} |", flush=True)


if __name__ == "__main__":
    main()
