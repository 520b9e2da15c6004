"""images, or a checkpoint, `vqgan.*` -> data/vqgan.safetensors, metrics/vqgan.json, tokenizer.tsv: the tokenizer."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from vqlcmd.costs import fitting
from vqlcmd.efficientnet import EfficientNetLite0, weights_file
from vqlcmd.evaluation.frechet import reconstruction_distance
from vqlcmd.images import loader, manifest
from vqlcmd.images.copies import first_of
from vqlcmd.loggers import LOGGERS
from vqlcmd.params import Params, load_params
from vqlcmd.pretrained import convert, download
from vqlcmd.pretrained.described import architecture
from vqlcmd.runtime import launcher, paths, pipeline, resume
from vqlcmd.runtime.distributed import barrier, device, gather, rank
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.files import atomic_write, write_json, write_tsv
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokenizer_fit.fit import build, fit
from vqlcmd.tokenizer_fit.perceptual import NETWORKS
from vqlcmd.tokenizer_fit.pictures import InMemory, Pictures, open_pictures
from vqlcmd.tokenizer_fit.quality import at_once, reconstructions, statistics
from vqlcmd.tokenizer_fit.recipe import described
from vqlcmd.tokens import shards

FEATURES = "efficientnet"
"""Network in whose features images and reconstructions are compared, if `perceptual_network` is set to it."""
SHOWN = 64
"""Most images that are evaluated for a row of metrics/tokenizer.tsv."""
PICTURES = 8
"""How many of them the figure of that row shows: above the originals, below the reconstructions."""


def run() -> None:
    """Convert the checkpoint that params.yaml names or, where it names none, train a VQGAN on the data set."""
    params = load_params()
    if params.vqgan.checkpoint is None:
        _fit(params)
    elif rank() == 0:
        _take(params, params.vqgan.checkpoint)


def _read(params: Params, checkpoint: str, key: str) -> tuple[vqgan.VQGAN, dict[str, Any]]:
    """The tokenizer that `key` of params.yaml names, and its provenance. ConfigError where it does not fit."""
    settings, url = params.vqgan, download.is_url(checkpoint)
    path = download.fetch(checkpoint, paths.cache(), settings.sha256) if url else Path(checkpoint).expanduser()
    if path.resolve() == paths.VQGAN.resolve():
        raise ConfigError(f"{key} is {checkpoint}, which this stage writes: name a copy elsewhere")
    config, used = (Path(name).expanduser() if name else None for name in (settings.config, settings.used_codes))
    tokenizer, provenance = convert.read(path, settings.format, config, settings.sha256, settings.pixel_range, used)
    shape = tokenizer.architecture
    factor = shape.downsampling
    if params.images.size % factor:
        raise ConfigError(
            f"images.size {params.images.size} must be a multiple of {factor}, which {checkpoint} divides by"
        )
    if shape.in_channels != 3:
        raise ConfigError(f"{checkpoint} is for {shape.in_channels} channels, images have 3: name another one")
    return tokenizer, provenance


def _take(params: Params, checkpoint: str) -> None:
    tokenizer, provenance = _read(params, checkpoint, "vqgan.checkpoint")
    vqgan.save(tokenizer, paths.VQGAN, {**provenance, "settings": params.vqgan.taken()})
    assumed = provenance.get("assumed", {})
    write_json(paths.METRICS / "vqgan.json", {"fitted": False, "assumed": assumed})
    write_tsv(paths.METRICS / "tokenizer.tsv", [{"step": 0}])
    side, codes = params.images.size // tokenizer.architecture.downsampling, tokenizer.codes
    print(f"vqgan: {provenance['file']} as {provenance['format']}, {side} x {side} tokens of {codes} codes")
    if "codes" in provenance:
        print(f"vqgan: {_relation(tokenizer, provenance)}")
    for name, taken in assumed.items():
        print(f"vqgan: warning: neither tensors nor a configuration tell {name}; taken for it: {taken}")
    if params.vqgan.sha256 is None:
        print(f"vqgan: to have it checked from now on, set vqgan.sha256: {provenance['sha256']}")


def _relation(tokenizer: vqgan.VQGAN, provenance: dict[str, Any]) -> str:
    """A sentence on how tokens and codes are related, for a tokenizer with fewer tokens than codes."""
    where = provenance.get("used_codes", provenance)["file"]
    if tokenizer.merge is not None:
        return f"{where} merges {provenance['codes']} codes into {tokenizer.codes} tokens"
    return f"{where} lists {tokenizer.codes} of {provenance['codes']} codes as used, and only these are tokens"


def _fit(params: Params) -> None:
    settings = params.vqgan
    listed = manifest.read(paths.MANIFESTS / f"{params.dataset}.json")
    source = loader.open_images(listed, paths.images_root())
    begun, origin = (None, None) if settings.init is None else _read(params, settings.init, "vqgan.init")
    shape = begun.architecture if begun else architecture(settings, params.images.size)
    fitting.require_fit(shape, settings.fit, params.images.size, len(source), device())
    tokenizer = begun or build(shape, settings.seed)
    if tokenizer.architecture.variant.gumbel:
        raise ConfigError(
            f"vqgan.init is {settings.init}, whose codes are a convolution's choice (Gumbel), not the nearest ones, "
            "which cannot be trained here: take it as it is, as vqgan.checkpoint, or name another one"
        )
    if tokenizer.merge is not None:
        raise ConfigError(
            f"vqgan.used_codes is {settings.used_codes}, which merges codes into tokens, and such a tokenizer cannot "
            "be trained here: take it as it is, as vqgan.checkpoint, or set it to null"
        )
    perceptual = NETWORKS[settings.fit.perceptual_network]()
    if perceptual is not None:
        perceptual.to(device())
    training, judged, apart = _split(params, listed, source)

    dumped = params.model_dump(mode="json", include={"images", "tokenize", "vqgan"})
    dumped["tokenize"] = params.tokenize.holdout
    del dumped["vqgan"]["fit"]["save_every"]
    inputs = {"manifest": manifest.digest(listed), "init": origin and origin["sha256"]}
    this = resume.Run("vqgan", dumped, inputs, pipeline.code(params.model_dump(), "vqgan"))
    album = resume.state_root() / "logs" / f"vqgan-{this.name}"
    logger = params.train.logger if rank() == 0 else "none"
    with (
        resume.State.of(this, writer=rank() == 0) as state,
        LOGGERS[logger](resume.state_root() / "logs" / this.name, dumped) as log,
        launcher.graceful() as stop,
    ):

        def watch(rows: list[dict[str, float]], reconstructed: Tensor) -> None:
            if rank() == 0:
                write_tsv(paths.METRICS / "tokenizer.tsv", rows)
                above_and_below = torch.stack([judged.images[:PICTURES], reconstructed[:PICTURES].cpu()])
                pixels = above_and_below.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
                step = int(rows[-1]["step"])
                path = album / f"{step:07}.png"
                with atomic_write(path) as side:
                    Image.fromarray(pixels.numpy()).save(side)
                log.row(rows[-1])
                log.picture("reconstructions", step, path)

        barrier()
        kept, rows = fit(
            tokenizer.to(device()),
            training,
            judged.images[:SHOWN].to(device()),
            settings.fit,
            seed=settings.seed,
            state=state,
            has_codes=begun is not None,
            perceptual=perceptual,
            stop=stop,
            watch=watch,
        )
        # Of a set that is not kept in memory each process reads a part.
        for unreadable in gather(training.broken):
            training.broken.update(unreadable)
        if rank() == 0:
            numbers = statistics(kept, judged.images.to(device()), perceptual)
            distance = (
                {f"fid_{FEATURES}": _distance(kept, judged.images)}
                if settings.fit.perceptual_network == FEATURES
                else {}
            )
            provenance = {
                "dataset": listed.name,
                "manifest": inputs["manifest"],
                "fit": described(settings.fit),
                "settings": settings.model_dump(mode="json"),
                **({"init": origin} if origin else {}),
                **({"resumed_across": state.edits} if state.edits else {}),
            }
            vqgan.save(kept, paths.VQGAN, provenance)
            write_tsv(paths.METRICS / "tokenizer.tsv", rows)
            skipped = training.broken | judged.broken
            about = {
                "fitted": True,
                "images": training.readable(),
                "judged": len(judged),
                "held_out": apart,
                "skipped": len(skipped),
            }
            write_json(paths.METRICS / "vqgan.json", about | numbers | distance)
            if skipped:
                print(f"vqgan: {len(skipped)} images cannot be read and are left out: {loader.named(skipped)}")
            print(f"vqgan: reconstructions at every row of metrics/tokenizer.tsv are in {album}")
        barrier()
        state.finish()


def _distance(tokenizer: vqgan.VQGAN, images: Tensor) -> float | None:
    """Fréchet distance between the images (uint8) and their reconstructions, in the features of EfficientNet-Lite0."""
    network = EfficientNetLite0(weights_file()).eval().to(device())
    batches = (part.to(device()) for part in images.split(at_once(images)))
    pairs = ((part, reconstructions(tokenizer, part, quantised=True)) for part in batches)
    return reconstruction_distance(pairs, lambda part: network(part)[0])


def _split(params: Params, listed: manifest.Manifest, source: loader.ImageSource) -> tuple[Pictures, InMemory, bool]:
    """The images to train on, those to evaluate on, and whether the latter are held out.

    They are held out if `vqgan.fit.use_heldout` is false and there are held-out images; otherwise all images serve for
    both. At most `vqgan.fit.limit` images are evaluated on.
    """
    settings = params.vqgan.fit
    recipe = loader.Recipe.of(**params.images.model_dump()).one_view()
    positions = torch.arange(len(source))
    held = shards.heldout(first_of(listed.copies, positions), params.tokenize.holdout)
    apart = not settings.use_heldout and bool(held.any())
    if apart and held.all():
        raise ConfigError(
            f"tokenize.holdout {params.tokenize.holdout:g} leaves none of {len(source)} images to train on: lower it"
        )

    def opened(chosen: Tensor, size: int) -> Pictures:
        return open_pictures(
            source,
            dataclasses.replace(recipe, size=size),
            chosen,
            limit=settings.limit,
            workers=paths.workers(),
            skip_broken=params.images.skip_broken,
        )

    training = opened(positions[~held] if apart else positions, round(params.images.size * (1 + settings.crop_margin)))
    others = positions[held] if apart else positions
    chosen = others[torch.from_numpy(loader.subsample(len(others), settings.limit, params.vqgan.seed, "judged"))]
    # Images of every class come first, since the first ones are shown.
    judged = opened(chosen[torch.from_numpy(loader.over_classes(source.labels[chosen.numpy()]))], params.images.size)
    assert isinstance(judged, InMemory), "as many as the limit at most"
    return training, judged, apart


def main() -> int:
    """Run the stage as `python -m stages.vqgan` does; returns the exit code."""
    return launcher.main("vqgan", run, parallel=True)


if __name__ == "__main__":
    sys.exit(main())
