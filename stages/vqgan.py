"""images, `vqgan.*` -> data/vqgan.safetensors and metrics/vqgan.json: the tokenizer, frozen ever after."""

import sys
from pathlib import Path

from stages import paths, runner
from vqlcmd import images, manifest, vqgan
from vqlcmd.config import Params, load_params
from vqlcmd.distributed import device
from vqlcmd.errors import ConfigError, DataError
from vqlcmd.files import sha256, write_json
from vqlcmd.progress import Progress
from vqlcmd.vqgan_fit import FitSettings, fit


def run() -> None:
    """Take the checkpoint that params.yaml names, or fit a small VQGAN on the data set."""
    params = load_params()
    if params.vqgan.checkpoint is not None:
        checkpoint = Path(params.vqgan.checkpoint)
        if checkpoint.resolve() == paths.VQGAN.resolve():
            raise ConfigError(f"vqgan.checkpoint is {checkpoint}, which this stage writes: name a copy elsewhere")
        if not checkpoint.is_file():
            raise ConfigError(
                f"vqgan.checkpoint is {checkpoint}, which is not a file: name one, or null to fit a tokenizer"
            )
        try:
            tokenizer = vqgan.load(checkpoint)
        except DataError:
            raise ConfigError(
                f"vqgan.checkpoint is {checkpoint}, but this project did not write it; other formats are not read yet"
            ) from None
        factor = tokenizer.architecture.downsampling
        if params.images.size % factor:
            raise ConfigError(
                f"images.size {params.images.size} must be a multiple of {factor}, which {checkpoint} divides by"
            )
        vqgan.save(tokenizer, paths.VQGAN, {"checkpoint": checkpoint.name, "sha256": sha256(checkpoint)})
        write_json(paths.METRICS / "vqgan.json", {"fitted": False})
    else:
        _fit(params)


def _fit(params: Params) -> None:
    settings = params.vqgan
    architecture = vqgan.Architecture(
        resolution=params.images.size,
        **settings.model_dump(include={"ch", "num_res_blocks", "z_channels", "embed_dim", "n_embed"}),
        ch_mult=tuple(settings.ch_mult),
        attn_resolutions=tuple(settings.attn_resolutions),
    )
    listed = manifest.read(paths.MANIFESTS / f"{params.dataset}.json")
    pictures = images.load_all(
        images.open_images(listed, paths.images_root()),
        images.Recipe(params.images.size, params.images.resize, params.images.crop),
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
    vqgan.save(tokenizer, paths.VQGAN, {"dataset": listed.name, "manifest": manifest.digest(listed), "fit": how})
    write_json(paths.METRICS / "vqgan.json", {"fitted": True, "images": len(pictures), **figures})


if __name__ == "__main__":
    sys.exit(runner.main("vqgan"))
