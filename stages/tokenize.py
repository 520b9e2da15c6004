"""images, vqgan -> data/tokens (packed shards, header, codebook) and metrics/reconstructions.png."""

import sys

import torch

from stages import paths, runner
from vqlcmd import images, manifest, plots, shards, vqgan
from vqlcmd.config import load_params
from vqlcmd.distributed import device
from vqlcmd.files import sha256
from vqlcmd.progress import Progress


def run() -> None:
    """Encode every image of the data set, and its mirror image where `images.flip` says so."""
    params = load_params()
    listed = manifest.read(paths.MANIFESTS / f"{params.dataset}.json")
    source = images.open_images(listed, paths.images_root())
    recipe = images.Recipe(params.images.size, params.images.resize, params.images.crop)
    tokenizer = vqgan.load(paths.VQGAN, device())

    broken: dict[str, str] = {}
    parts: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    grid = None
    with Progress("tokenize", len(source)) as progress:
        for batch in images.stream(
            source,
            recipe,
            batch_size=params.tokenize.batch_size,
            workers=paths.workers(),
            skip_broken=params.images.skip_broken,
            broken=broken,
        ):
            pixels = vqgan.to_float(batch.images.to(device()))
            for mirrored in (pixels, pixels.flip(3)) if params.images.flip else (pixels,):
                parts.append((tokenizer.encode(mirrored).int().cpu(), batch.labels, batch.index))
            if grid is None:
                shown = tokenizer.encode(pixels[:20])
                grid = torch.cat([batch.images[:20], vqgan.to_uint8(tokenizer.decode(shown)).cpu()])
            progress.update(int(batch.index[-1]) + 1, len(batch.images))
    assert grid is not None
    plots.image_grid(grid, columns=20, path=paths.METRICS / "reconstructions.png")

    tokens, labels, index = (torch.cat(column) for column in zip(*parts, strict=True))
    heldout = shards.heldout(index, params.tokenize.holdout)
    shards.write_shards(
        paths.TOKENS,
        {
            "train": shards.Split(tokens[~heldout], labels[~heldout], index[~heldout]),
            "heldout": shards.Split(tokens[heldout], labels[heldout], index[heldout]),
        },
        {
            "tokens": tokens.shape[1],
            "grid": [params.images.size // tokenizer.architecture.downsampling] * 2,
            "codes": len(tokenizer.codebook),
            "classes": list(listed.classes),
            "images": params.images.model_dump(mode="json"),
            "manifest": {"name": listed.name, "digest": manifest.digest(listed)},
            "vqgan_digest": sha256(paths.VQGAN),
            "skipped": broken,
        },
        params.tokenize.shard_images,
        codebook_KD=tokenizer.codebook.cpu(),
    )


if __name__ == "__main__":
    sys.exit(runner.main("tokenize"))
