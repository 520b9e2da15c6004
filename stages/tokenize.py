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
    """Encode every square of every image, and its mirror image where `images.flip` says so.

    The records of an image follow each other, with the same position in the source, which decides on their split.
    """
    params = load_params()
    listed = manifest.read(paths.MANIFESTS / f"{params.dataset}.json")
    source = images.open_images(listed, paths.images_root())
    recipe = images.Recipe(params.images.size, params.images.resize, params.images.crop)
    tokenizer = vqgan.load(paths.VQGAN, device())
    side = params.images.size // tokenizer.architecture.downsampling
    mirrors = 2 if params.images.flip else 1

    broken: dict[str, str] = {}
    grid = None
    with (
        Progress("tokenize", len(source)) as progress,
        shards.ShardWriter(paths.TOKENS, params.tokenize.shard_images) as writer,
    ):
        for batch in images.stream(
            source,
            recipe,
            batch_size=params.tokenize.batch_size,
            workers=paths.workers(),
            skip_broken=params.images.skip_broken,
            broken=broken,
        ):
            pixels = vqgan.to_float(batch.images.to(device()))
            shown = (pixels, pixels.flip(3))[:mirrors]
            tokens = torch.stack([tokenizer.encode(each).int().cpu() for each in shown], dim=1).flatten(0, 1)
            labels, index = (column.repeat_interleave(mirrors) for column in (batch.labels, batch.index))
            heldout = shards.heldout(index, params.tokenize.holdout)
            for name, rows in (("train", ~heldout), ("heldout", heldout)):
                writer.add(name, shards.Split(tokens[rows], labels[rows], index[rows]))
            if grid is None:
                decoded = tokenizer.decode(tokens[::mirrors][:20].long().to(device()))
                grid = torch.cat([batch.images[:20], vqgan.to_uint8(decoded).cpu()])
            progress.update(int(batch.index[-1]) + 1, len(batch.images) / recipe.squares)
        records = mirrors * recipe.squares
        writer.finish(
            {
                "tokens": side**2,
                "grid": [side] * 2,
                "codes": len(tokenizer.codebook),
                "classes": list(listed.classes),
                "images": params.images.model_dump(mode="json"),
                "manifest": {"name": listed.name, "digest": manifest.digest(listed)},
                "vqgan_digest": sha256(paths.VQGAN),
                "skipped": broken,
                **({"records_per_image": records} if records > 1 else {}),
            },
            codebook_KD=tokenizer.codebook.cpu(),
        )
    assert grid is not None
    plots.image_grid(grid, columns=20, path=paths.METRICS / "reconstructions.png")


if __name__ == "__main__":
    sys.exit(runner.main("tokenize"))
