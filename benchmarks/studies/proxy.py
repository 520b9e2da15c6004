"""Distances of known things by the proxy classifier: `python -m benchmarks.studies.proxy`, in a finished checkout.

One half of the images, drawn, against the other one, which is degraded on purpose: a scale to read `fid_proxy` by. The
halves are of one size, so they compare with each other, and not with the FID of all images, which has less bias.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.known import SEED, SPOILT, Spoil
from benchmarks.measure import Report
from vqlcmd.evaluation.extractors import extractor
from vqlcmd.evaluation.frechet import frechet_distance
from vqlcmd.evaluation.moments import Moments, Statistics
from vqlcmd.images import loader, manifest
from vqlcmd.images.crops import Recipe
from vqlcmd.params import load_params
from vqlcmd.runtime import paths


def spoilt(images: Tensor, spoil: Spoil) -> Tensor:
    """Images (n, 3, S, S) uint8, each degraded on its own."""
    draws = np.random.default_rng(SEED)
    made = [spoil(Image.fromarray(image.permute(1, 2, 0).numpy()), draws) for image in images]
    return torch.from_numpy(np.stack([np.asarray(each) for each in made])).permute(0, 3, 1, 2)


def main() -> None:
    """Of the data set and the proxy classifier of params.yaml."""
    params, weights = load_params(), paths.proxy_weights("proxy")
    listed = manifest.read(paths.MANIFESTS / f"{params.dataset}.json")
    source = loader.open_images(listed, paths.images_root())
    images, labels, _ = loader.load_all(source, Recipe.of(**params.images.model_dump()).one_view())
    network = extractor("proxy", weights)

    def statistics(of: Tensor) -> Statistics:
        moments = Moments()
        for batch in of.split(256):
            moments.add(network(batch).features)
        found = moments.statistics()
        assert found is not None
        return found

    order = torch.from_numpy(np.random.default_rng(SEED).permutation(len(images)))
    half, other = order.tensor_split(2)
    real, sets = statistics(images[half]), {"the other half": images[other]}
    sets |= {f"the other half, {name}": spoilt(images[other], spoil) for name, spoil in SPOILT.items()}
    sets["one class only"] = images[labels == labels[order[0]]]
    report = Report("studies.proxy", f"{len(half)} images of {params.dataset} against")
    for name, each in sets.items():
        report.row(images=name, count=len(each), fid_proxy=f"{frechet_distance(statistics(each), real):.2f}")


if __name__ == "__main__":
    main()
