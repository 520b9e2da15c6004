"""images, vqgan -> data/tokens (packed shards, header, codebook, a few images)."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqlcmd import tokenizer as tokenizers
from vqlcmd.images import loader, manifest
from vqlcmd.images.copies import first_of
from vqlcmd.params import Params, load_params
from vqlcmd.runtime import launcher, paths, pipeline, resume
from vqlcmd.runtime.batches import collect
from vqlcmd.runtime.distributed import barrier, device, rank, world
from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.tokenizer import Tokenizer
from vqlcmd.tokenizer.pixels import to_float
from vqlcmd.tokens import shards
from vqlcmd.tokens.header import check_codes

PREVIEWS = 20


def run() -> None:
    """Encode every crop of every image and, with `images.flip`, its mirror image.

    The records of an image are adjacent and have the same position in the source, which decides on their split.
    """
    params = load_params()
    listed = manifest.read(paths.MANIFESTS / f"{params.dataset}.json")
    source = loader.open_images(listed, paths.images_root())
    tokenizer = tokenizers.load(paths.VQGAN, device())
    check_codes(tokenizer.codes, paths.VQGAN)
    grid = tokenizer.grid(params.images.size, params.images.size)
    shards.check_training_images(len(source), params.tokenize.holdout)
    settings = params.model_dump(mode="json", include={"images", "tokenize"})
    # After an error about broken images, a run that skips them need not encode the others again.
    del settings["images"]["skip_broken"]
    inputs = {"manifest": manifest.digest(listed), "vqgan": sha256(paths.VQGAN)}
    this = resume.Run("tokenize", settings, inputs, pipeline.code(params.model_dump(), "tokenize"))
    with resume.State.of(this, writer=rank() == 0) as state:
        barrier()
        found = _Found(params, listed.copies, state.directory / "shards")
        each = loader.images_per_batch(params.tokenize.batch_size, _recipe(params))
        collect("tokenize", len(source), each, lambda first: _encoded(params, source, tokenizer, first), found, state)
        if rank() == 0:
            loader.raise_if_broken(found.broken, len(source), params.images.skip_broken)
            if not found.writer.count("train"):
                raise DataError("no image that can be read is left for training: lower tokenize.holdout")
            records = _recipe(params).views * (2 if params.images.flip else 1)
            found.writer.finish(
                {
                    "tokens": math.prod(grid),
                    "grid": list(grid),
                    "codes": tokenizer.codes,
                    "classes": list(listed.classes),
                    "images": params.images.model_dump(mode="json"),
                    "holdout": params.tokenize.holdout,
                    "precision": params.tokenize.precision,
                    "manifest": {"name": listed.name, "digest": inputs["manifest"]},
                    "vqgan_digest": inputs["vqgan"],
                    "skipped": found.broken,
                    **({"records_per_image": records} if records > 1 else {}),
                    **({"resumed_across": state.edits} if state.edits else {}),
                },
                codebook_KD=tokenizers.codebook_table(tokenizer),
                previews=_previews(params, source),
            )
            if broken := found.broken:
                print(f"tokenize: {len(broken)} images cannot be read and are left out: {loader.named(broken)}")
        barrier()
        state.finish()


class _Found:
    """What process 0 collects: shards, and the names of images that cannot be read."""

    seconds_between_saves = math.inf

    def __init__(self, params: Params, copies: dict[int, int], keep: Path):
        self._params, self._copies, self.broken = params, copies, dict[str, str]()
        self.writer = shards.ShardWriter(paths.TOKENS, params.tokenize.shard_images, keep)
        self._written = 0

    def add(self, piece: tuple[shards.Split, dict[str, str]]) -> None:
        split, unreadable = piece
        self.broken |= unreadable
        held = shards.heldout(first_of(self._copies, split.index), self._params.tokenize.holdout)
        for name, rows in (("train", ~held), ("heldout", held)):
            self.writer.add(name, shards.Split(split.tokens[rows], split.labels[rows], split.index[rows]))

    def state_dict(self) -> dict[str, Any]:
        return {"broken": self.broken, "writer": self.writer.state_dict()}

    def load_state_dict(self, saved: dict[str, Any]) -> bool:
        # Unreadable images may be readable now; only a run that skips them continues without reading them again.
        if saved["broken"] and not self._params.images.skip_broken:
            return False
        if not self.writer.load_state_dict(saved["writer"]):
            return False
        self.broken, self._written = saved["broken"], self.writer.shards
        return True

    def wants_saving(self, finished: bool) -> bool:
        written, self._written = self._written, self.writer.shards
        return finished or self.writer.shards > written


def _recipe(params: Params) -> loader.Recipe:
    return loader.Recipe.of(**params.images.model_dump())


def _encoded(
    params: Params, source: loader.ImageSource, tokenizer: Tokenizer, first: int
) -> Iterator[tuple[shards.Split, dict[str, str]]]:
    """This process's batches of the images from `first` on: their records, and {name: reason} of unreadable images."""
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
        how = params.tokenize
        parts = [_tokens(tokenizer, part, mirrors, how.precision) for part in batch.images.split(how.batch_size)]
        labels, index = (column.repeat_interleave(mirrors) for column in (batch.labels, batch.index))
        unreadable = dict(found)
        found.clear()
        yield shards.Split(torch.cat(parts), labels, index), unreadable


def _tokens(tokenizer: Tokenizer, pixels: Tensor, mirrors: int, precision: str) -> Tensor:
    """Tokens of images (B, 3, S, S), each followed by those of its mirror image if `mirrors` is 2: (mirrors B, N)."""
    if not len(pixels):
        return torch.empty(0, math.prod(tokenizer.grid(pixels.shape[2], pixels.shape[3])), dtype=torch.int32)
    shown = to_float(pixels.to(device()))
    views = (shown, shown.flip(3))[:mirrors]
    return torch.stack([tokenizer.encode(view, precision=precision).int().cpu() for view in views], dim=1).flatten(0, 1)


def _previews(params: Params, source: loader.ImageSource) -> dict[str, Tensor]:
    """PREVIEWS readable images, drawn evenly over the classes by a fixed seed, and their classes; sorted by class."""
    order = loader.over_classes(source.labels)
    batches = loader.stream(source, _recipe(params).one_view(), batch_size=PREVIEWS, broken={}, indices=order)
    first = next(batch for batch in batches if len(batch.index))
    by_class = first.labels.argsort(stable=True)
    return {"images": first.images[by_class], "labels": first.labels[by_class]}


def main() -> int:
    """Run the stage as `python -m stages.tokenize` does; returns the exit code."""
    return launcher.main("tokenize", run, parallel=True)


if __name__ == "__main__":
    sys.exit(main())
