"""images or a checkpoint, `vqgan.*` -> data/vqgan.safetensors, metrics/vqgan.json: the tokenizer, frozen ever after."""

import sys
from pathlib import Path

from vqlcmd.images import loader, manifest
from vqlcmd.params import Params, load_params
from vqlcmd.pretrained import convert, described, download
from vqlcmd.runtime import launcher, paths
from vqlcmd.runtime.distributed import device
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.files import write_json
from vqlcmd.runtime.progress import Progress
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokenizer_fit.fit import FitSettings, fit


def run() -> None:
    """Take the checkpoint that params.yaml names, whoever trained it, or fit a small VQGAN on the data set."""
    params = load_params()
    if params.vqgan.checkpoint is None:
        _fit(params)
    else:
        _take(params, params.vqgan.checkpoint)


def _take(params: Params, checkpoint: str) -> None:
    settings, url = params.vqgan, download.is_url(checkpoint)
    path = download.fetch(checkpoint, paths.cache(), settings.sha256) if url else Path(checkpoint).expanduser()
    if path.resolve() == paths.VQGAN.resolve():
        raise ConfigError(f"vqgan.checkpoint is {checkpoint}, which this stage writes: name a copy elsewhere")
    config = Path(settings.config).expanduser() if settings.config else None
    tokenizer, provenance = convert.read(path, settings.format, config, settings.sha256, settings.pixel_range)
    architecture = tokenizer.architecture
    factor = architecture.downsampling
    if params.images.size % factor:
        raise ConfigError(
            f"images.size {params.images.size} must be a multiple of {factor}, which {checkpoint} divides by"
        )
    if architecture.in_channels != 3:
        raise ConfigError(f"{checkpoint} is for {architecture.in_channels} channels, images have 3: name another one")
    vqgan.save(tokenizer, paths.VQGAN, provenance)
    assumed = provenance.get("assumed", {})
    write_json(paths.METRICS / "vqgan.json", {"fitted": False, "assumed": assumed})
    side, codes = params.images.size // factor, architecture.n_embed
    print(f"vqgan: {provenance['file']} as {provenance['format']}, {side} x {side} tokens of {codes} codes")
    if "codes" in provenance:
        print(f"vqgan: the file lists {codes} of its {provenance['codes']} codes as used, and only these are tokens")
    for name, taken in assumed.items():
        print(f"vqgan: warning: neither tensors nor a configuration tell {name}; taken for it: {taken}")
    if settings.sha256 is None:
        print(f"vqgan: to have it checked from now on, set vqgan.sha256: {provenance['sha256']}")


def _fit(params: Params) -> None:
    settings = params.vqgan
    architecture = described.architecture(settings, params.images.size)
    listed = manifest.read(paths.MANIFESTS / f"{params.dataset}.json")
    pictures = loader.load_all(
        loader.open_images(listed, paths.images_root()),
        loader.Recipe.of(**params.images.model_dump()).one_view(),
        limit=settings.fit.limit,
        seed=settings.seed,
        workers=paths.workers(),
        skip_broken=params.images.skip_broken,
    ).images
    how = settings.fit.model_dump(exclude={"limit"})
    with Progress("vqgan", settings.fit.steps) as progress:
        tokenizer, figures = fit(
            pictures.to(device()),
            architecture,
            FitSettings(**how, seed=settings.seed),
            on_step=lambda step, terms: progress.update(step + 1, settings.fit.batch_size, terms),
        )
    vqgan.save(
        tokenizer,
        paths.VQGAN,
        {
            "dataset": listed.name,
            "manifest": manifest.digest(listed),
            "fit": how,
            "settings": settings.model_dump(mode="json"),
        },
    )
    write_json(paths.METRICS / "vqgan.json", {"fitted": True, "images": len(pictures), **figures})


def main() -> int:
    """Run the stage as `python -m stages.vqgan` does; gives the exit code."""
    return launcher.main("vqgan", run, parallel=False)


if __name__ == "__main__":
    sys.exit(main())
