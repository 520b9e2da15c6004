"""images, vqgan -> data/reference: features of real images and of their reconstructions, and the judge."""

import sys

import torch
from torch import Tensor

from stages import paths, runner
from vqlcmd import images, judge, manifest, shards, vqgan
from vqlcmd.config import Params, load_params
from vqlcmd.distributed import device
from vqlcmd.features import extractor
from vqlcmd.progress import Progress
from vqlcmd.weights import save_weights


def run() -> None:
    """Once per data set: whatever evaluation needs to know of the real images."""
    params = load_params()
    listed = manifest.read(paths.MANIFESTS / f"{params.dataset}.json")
    source = images.open_images(listed, paths.images_root())
    about = {"classes": list(listed.classes), "features": params.evaluate.features, "judge_accuracy": None}
    paths.REFERENCE.mkdir(parents=True, exist_ok=True)
    if params.evaluate.features == "judge":
        about["judge_accuracy"] = _fit_judge(params, source, len(listed.classes))
    network = extractor(params.evaluate.features, paths.judge_weights(params.evaluate.features), device())
    tokenizer = vqgan.load(paths.VQGAN, device())

    found: dict[str, list[Tensor]] = {}
    with Progress("reference", len(source)) as progress:
        for batch in images.stream(
            source,
            _recipe(params),
            batch_size=params.reference.batch_size,
            workers=paths.workers(),
            skip_broken=params.images.skip_broken,
        ):
            pixels = batch.images.to(device())
            decoded = vqgan.to_uint8(tokenizer.decode(tokenizer.encode(vqgan.to_float(pixels))))
            for name, shown in (("real", pixels), ("reconstructed", decoded)):
                for layer, values in network(shown).items():
                    if values is not None:
                        found.setdefault(f"{name}_{layer}", []).append(values)
            progress.update(int(batch.index[-1]) + 1, len(batch.images))
    tensors = {name: torch.cat(parts) for name, parts in found.items()}
    about["weights_digest"] = network.digest
    save_weights(paths.REFERENCE / "features.safetensors", "reference", tensors, about)


def _recipe(params: Params) -> images.Recipe:
    """One square of each image, whatever the tokens are made of: the metrics count images."""
    return images.Recipe(params.images.size, params.images.resize, params.images.crop).single()


def _fit_judge(params: Params, source: images.ImageSource, classes: int) -> float | None:
    """Train the judge on the images that training sees; returns its accuracy on the others."""
    everything = images.load_all(
        source,
        _recipe(params),
        workers=paths.workers(),
        skip_broken=params.images.skip_broken,
        limit=params.vqgan.fit.limit,
    )
    held = shards.heldout(everything.index, params.tokenize.holdout)
    settings = params.reference.judge
    with Progress("judge", settings.steps) as progress:
        fitted = judge.fit_judge(
            everything.images[~held],
            everything.labels[~held],
            classes,
            steps=settings.steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=params.reference.seed,
            on_step=lambda step, loss: progress.update(step + 1, settings.batch_size, {"loss": loss}),
        )
    judge.save_judge(fitted, paths.REFERENCE / "judge.safetensors")
    return judge.accuracy(fitted, everything.images[held], everything.labels[held]) if held.any() else None


if __name__ == "__main__":
    sys.exit(runner.main("reference"))
