"""images, vqgan -> data/tokens (packed shards, header, codebook, a few images)."""

import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from vqlcmd.images import loader, manifest
from vqlcmd.images.copies import first_of
from vqlcmd.params import Params, load_params
from vqlcmd.runtime import launcher, paths, resume
from vqlcmd.runtime.distributed import any_rank, barrier, broadcast_object, device, in_order, rank, world
from vqlcmd.runtime.errors import Interrupted
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.progress import Progress
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokenizer.pixels import to_float
from vqlcmd.tokens import shards

PREVIEWS = 20


def run() -> None:
    """Encode every square of every image, and its mirror image where `images.flip` says so.

    The records of an image follow each other, with the same position in the source, which decides on their split.
    """
    params = load_params()
    listed = manifest.read(paths.MANIFESTS / f"{params.dataset}.json")
    source = loader.open_images(listed, paths.images_root())
    tokenizer = vqgan.load(paths.VQGAN, device())
    settings = params.model_dump(mode="json", include={"images", "tokenize"})
    # Who finds broken images at the end may leave them out without a second look at the others.
    del settings["images"]["skip_broken"]
    code = resume.sources(*paths.CODE)
    name = resume.fingerprint(settings, manifest.digest(listed), sha256(paths.VQGAN), code)
    with resume.State(launcher.state_root() / "tokenize" / name, writer=rank() == 0) as state:
        barrier()
        writer = shards.ShardWriter(paths.TOKENS, params.tokenize.shard_images, state.directory / "shards")
        broken = _encode(params, source, listed.copies, tokenizer, state, writer)
        if rank() == 0:
            loader.raise_if_broken(broken, len(source), params.images.skip_broken)
            records = _recipe(params).crop_views * (2 if params.images.flip else 1)
            side = params.images.size // tokenizer.architecture.downsampling
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
                previews=_previews(params, source),
            )
        barrier()
        state.finish()


def _recipe(params: Params) -> loader.Recipe:
    return loader.Recipe.of(params.images)


def _encode(
    params: Params,
    source: loader.ImageSource,
    copies: dict[int, int],
    tokenizer: vqgan.VQGAN,
    state: resume.State,
    writer: shards.ShardWriter,
) -> dict[str, str]:
    """All images into the writer of process 0, from the start or from where the same run stopped; the broken ones."""
    saved = state.load() if rank() == 0 else None
    # What could not be read may be readable now; only who leaves it out goes on without another look.
    usable = saved and (params.images.skip_broken or not saved["broken"]) and writer.load_state_dict(saved["writer"])
    broken: dict[str, str] = saved["broken"] if saved and usable else {}
    done, written = broadcast_object(saved["done"] if saved and usable else 0), writer.shards
    each = loader.images_per_batch(params.tokenize.batch_size, _recipe(params))
    batches = -(-(len(source) - done) // each)

    def save() -> None:
        state.save({"done": done, "broken": broken, "writer": writer.state_dict()})

    with launcher.graceful() as stop, Progress("tokenize", len(source), quiet=rank() > 0) as progress:
        for pieces in in_order(_encoded(params, source, tokenizer, done), batches):
            for split, unreadable in pieces:
                broken |= unreadable
                held = shards.heldout(first_of(copies, split.index), params.tokenize.holdout)
                for name, rows in (("train", ~held), ("heldout", held)):
                    writer.add(name, shards.Split(split.tokens[rows], split.labels[rows], split.index[rows]))
            before, done = done, min(done + each * world(), len(source))
            progress.update(done, done - before)
            if writer.shards > written or done == len(source):
                written = writer.shards
                save()
            if any_rank(stop()) and done < len(source):
                save()
                raise Interrupted(f"stopped after {done} of {len(source)} images; the same command goes on from there")
    return broken


def _encoded(
    params: Params, source: loader.ImageSource, tokenizer: vqgan.VQGAN, first: int
) -> Iterator[tuple[shards.Split, dict[str, str]]]:
    """This process's batches of the images from `first` on: their records, and what could not be read of them."""
    mirrors = 2 if params.images.flip else 1
    found: dict[str, str] = {}
    for batch in loader.stream(
        source,
        _recipe(params),
        batch_size=params.tokenize.batch_size,
        broken=found,
        workers=paths.workers(),
        indices=range(first, len(source)),
        share=(rank(), world()),
    ):
        parts = [_tokens(tokenizer, part, mirrors) for part in batch.images.split(params.tokenize.batch_size)]
        labels, index = (column.repeat_interleave(mirrors) for column in (batch.labels, batch.index))
        unreadable = dict(found)
        found.clear()
        yield shards.Split(torch.cat(parts), labels, index), unreadable


def _tokens(tokenizer: vqgan.VQGAN, pixels: Tensor, mirrors: int) -> Tensor:
    """Those of images (B, 3, S, S), each followed by its mirror image: (mirrors B, N)."""
    if not len(pixels):
        side = pixels.shape[2] // tokenizer.architecture.downsampling
        return torch.empty(0, side**2, dtype=torch.int32)
    shown = to_float(pixels.to(device()))
    views = (shown, shown.flip(3))[:mirrors]
    return torch.stack([tokenizer.encode(view).int().cpu() for view in views], dim=1).flatten(0, 1)


def _previews(params: Params, source: loader.ImageSource) -> dict[str, Tensor]:
    """The first images that can be read, and their classes, for the picture of reconstructions."""
    batches = loader.stream(source, _recipe(params).one_view(), batch_size=PREVIEWS, broken={})
    first = next(batch for batch in batches if len(batch.index))
    return {"images": first.images[:PREVIEWS], "labels": first.labels[:PREVIEWS]}


def main() -> int:
    """Run the stage as `python -m stages.tokenize` does; gives the exit code."""
    return launcher.main("tokenize", run, parallel=True)


if __name__ == "__main__":
    sys.exit(main())
