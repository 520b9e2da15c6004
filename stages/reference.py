"""images, vqgan -> data/reference: what evaluation needs to know about real images and their reconstructions."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqlcmd import tokenizer as tokenizers
from vqlcmd.evaluation import proxy_classifier
from vqlcmd.evaluation.extractors import Extractor, extractors
from vqlcmd.evaluation.moments import Moments, read_statistics
from vqlcmd.images import loader, manifest
from vqlcmd.images.copies import first_of
from vqlcmd.params import Params, load_params
from vqlcmd.runtime import launcher, paths, pipeline, resume
from vqlcmd.runtime.batches import collect
from vqlcmd.runtime.distributed import barrier, device, gather, rank, world
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.progress import Progress
from vqlcmd.runtime.safetensors_file import save_weights
from vqlcmd.tokenizer import Tokenizer
from vqlcmd.tokenizer.pixels import to_float, to_uint8
from vqlcmd.tokens import shards

KINDS = ("real", "reconstructed")


def run() -> None:
    """Compute statistics of the images in use, and features of those that precision and recall are computed on."""
    params = load_params()
    listed = manifest.read(paths.MANIFESTS / f"{params.dataset}.json")
    source = loader.open_images(listed, paths.images_root())
    given = params.reference.statistics and Path(params.reference.statistics).expanduser()
    if given and params.evaluate.features == "proxy":
        raise ConfigError(
            "reference.statistics belongs to Inception, and the proxy classifier is made for one data set: "
            "set evaluate.features to inception, or reference.statistics to null"
        )
    statistics = read_statistics(given) if given else None
    shards.check_training_images(len(source), params.tokenize.holdout)
    judging = "proxy" in (params.evaluate.features, params.evaluate.precision_features)
    accuracy = None
    if rank() == 0 and judging:
        accuracy = _fit_proxy(params, source, listed)
    barrier()
    networks = extractors(params.evaluate, paths.proxy_weights, device(), params.reference.precision)
    if statistics is not None:
        blank = torch.zeros(1, 3, params.images.size, params.images.size, dtype=torch.uint8)
        size = networks[0](blank).features.shape[1]
        if len(statistics.mean) != size:
            raise DataError(f"{given}: mu has {len(statistics.mean)} numbers, but {networks[0].name} gives {size}")
    tokenizer = tokenizers.load(paths.VQGAN, device())

    settings = params.model_dump(mode="json", include={"images", "evaluate", "reference"})
    del settings["images"]["skip_broken"]
    settings["tokenize"] = {"precision": params.tokenize.precision}
    inputs = {
        "networks": [network.digest for network in networks],
        "manifest": manifest.digest(listed),
        "vqgan": sha256(paths.VQGAN),
    }
    this = resume.Run("reference", settings, inputs, pipeline.code(params.model_dump(), "reference"))
    chosen = loader.subsample(len(source), params.reference.limit, params.reference.seed, "reference")
    near = loader.subsample(len(chosen), params.evaluate.precision_images, params.reference.seed, "precision")
    kept = np.zeros(len(source), dtype=bool)
    kept[chosen[near]] = True
    with resume.State.of(this, writer=rank() == 0) as state:
        barrier()
        found, moments = _Found(params.images.skip_broken), _Moments()
        each = loader.images_per_batch(params.reference.batch_size, _recipe(params))
        collect(
            "reference",
            len(chosen),
            each,
            lambda first: _seen(params, source, tokenizer, networks, chosen[first:], kept, moments),
            found,
            state,
            moments,
        )
        moments = _Moments.merged(gather(moments.state_dict()))
        if rank() == 0:
            loader.raise_if_broken(found.broken, len(chosen), params.images.skip_broken)
            about = {
                "classes": list(listed.classes),
                "made_from": {
                    "manifest": inputs["manifest"],
                    "vqgan_digest": inputs["vqgan"],
                    "images": settings["images"],
                    "reference": settings["reference"],
                    "tokenize": settings["tokenize"],
                },
                "features": params.evaluate.features,
                "precision_features": params.evaluate.precision_features,
                "weights_digest": networks[0].digest,
                "precision_weights_digest": networks[1].digest,
                "proxy_accuracy": accuracy,
                "images": {name: moments.of[name].count for name in KINDS},
                "statistics": {"file": given.name, "sha256": sha256(given)} if given else None,
                **({"resumed_across": state.edits} if state.edits else {}),
            }
            measured = {name: moments.of[name].statistics() for name in KINDS}
            if statistics is not None:
                about["images"]["real"] = None
                measured["real"] = statistics
            tensors = {
                f"{name}_{part}": getattr(of, part)
                for name, of in measured.items()
                if of is not None
                for part in ("mean", "covariance")
            }
            save_weights(paths.REFERENCE / "features.safetensors", "reference", tensors | found.features(), about)
        barrier()
        state.finish()


class _Moments:
    """What each process keeps: the moments of its own batches, which are not sent batch by batch."""

    def __init__(self) -> None:
        self.of = {name: Moments() for name in KINDS}

    def state_dict(self) -> dict[str, Any]:
        return {name: each.state_dict() for name, each in self.of.items()}

    def load_state_dict(self, saved: list[dict[str, Any]]) -> None:
        # With the same number of processes, each continues with its own, bit for bit; otherwise the first takes all.
        own = saved[rank() : rank() + 1] if len(saved) == world() else saved if rank() == 0 else []
        self.of = self.merged(own).of

    @classmethod
    def merged(cls, saved: list[dict[str, Any]]) -> "_Moments":
        """The moments of these states together, added in their order."""
        found = cls()
        for part in saved:
            for name, each in found.of.items():
                other = Moments()
                other.load_state_dict(part[name])
                each.merge(other)
        return found


class _Found:
    """What process 0 collects: features and logits of the images that are kept."""

    seconds_between_saves = 600.0
    """A state may be gigabytes: it holds the features behind precision and recall."""

    def __init__(self, skip_broken: bool):
        self._skip_broken, self.broken = skip_broken, dict[str, str]()
        self._kept: dict[str, list[Tensor]] = {}

    def add(self, piece: dict[str, Any]) -> None:
        self.broken |= piece["broken"]
        for name, values in piece["kept"].items():
            self._kept.setdefault(name, []).append(values)

    def features(self) -> dict[str, Tensor]:
        return {name: torch.cat(parts) for name, parts in self._kept.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"broken": self.broken, "kept": self._kept}

    def load_state_dict(self, saved: dict[str, Any]) -> bool:
        # Unreadable images may be readable now; only a run that skips them continues without reading them again.
        if saved["broken"] and not self._skip_broken:
            return False
        self.broken, self._kept = saved["broken"], saved["kept"]
        return True

    def wants_saving(self, finished: bool) -> bool:
        # So that, after an error about broken images, a run that skips them need not read the others again.
        return finished and bool(self.broken)


def _seen(
    params: Params,
    source: loader.ImageSource,
    tokenizer: Tokenizer,
    networks: tuple[Extractor, Extractor],
    indices: np.ndarray,
    kept: np.ndarray,
    moments: _Moments,
) -> Iterator[dict[str, Any]]:
    """This process's batches: index, tokens, features and logits of the `kept` images; `moments` gets all features."""
    network, precise = networks
    found: dict[str, str] = {}
    for batch in loader.stream(
        source,
        _recipe(params),
        batch_size=params.reference.batch_size,
        broken=found,
        workers=paths.workers(),
        indices=indices,
        share=(rank(), world()),
    ):
        piece: dict[str, Any] = {"broken": dict(found), "kept": {}}
        found.clear()
        if len(batch.index):
            pixels = batch.images.to(device())
            # As in the stage tokenize, so that these are the tokens that a model is trained on.
            tokens_BN = tokenizer.encode(to_float(pixels), precision=params.tokenize.precision)
            grid = tokenizer.grid(*pixels.shape[2:])
            decoded = to_uint8(tokenizer.decode(tokens_BN, grid, precision=params.reference.precision))
            rows = torch.from_numpy(kept[batch.index.numpy()])
            if rows.any():
                piece["kept"] |= {"index": batch.index[rows], "tokens": tokens_BN.cpu()[rows].int()}
            for name, shown in zip(KINDS, (pixels, decoded), strict=True):
                layers = network(shown)
                moments.of[name].add(layers.features)
                if rows.any():
                    own = precise is network
                    near = layers.features[rows] if own else precise(shown[rows.to(shown.device)]).features
                    piece["kept"][f"{name}_features"] = near
                    if not own:
                        piece["kept"][f"{name}_fid_features"] = layers.features[rows]
                    if name == "reconstructed" and layers.logits is not None:
                        piece["kept"]["reconstructed_logits"] = layers.logits[rows]
        yield piece


def _recipe(params: Params) -> loader.Recipe:
    """One crop of each image, even if several are tokenized: the metrics count images."""
    return loader.Recipe.of(**params.images.model_dump()).one_view()


def _fit_proxy(params: Params, source: loader.ImageSource, listed: manifest.Manifest) -> float | None:
    """Train the proxy classifier on the training images; returns its accuracy on held-out ones, None without any."""
    settings = params.reference.proxy
    everything = loader.load_all(
        source,
        _recipe(params),
        workers=paths.workers(),
        skip_broken=params.images.skip_broken,
        limit=settings.limit,
        seed=params.reference.seed,
        purpose="proxy",
    )
    held = shards.heldout(first_of(listed.copies, everything.index), params.tokenize.holdout)
    threads = torch.get_num_threads()
    # One thread: the order of sums depends on the number of threads, and several processes have fewer of them.
    torch.set_num_threads(1)
    with Progress("proxy", settings.steps) as progress:
        fitted = proxy_classifier.fit_proxy(
            everything.images[~held],
            everything.labels[~held],
            len(listed.classes),
            steps=settings.steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            seed=params.reference.seed,
            on_step=lambda step, loss: progress.update(step + 1, settings.batch_size, {"loss": loss}),
        )
    torch.set_num_threads(threads)
    proxy_classifier.save_proxy(fitted, paths.REFERENCE / "proxy.safetensors")
    return proxy_classifier.accuracy(fitted, everything.images[held], everything.labels[held]) if held.any() else None


def main() -> int:
    """Run the stage as `python -m stages.reference` does; returns the exit code."""
    return launcher.main("reference", run, parallel=True)


if __name__ == "__main__":
    sys.exit(main())
