"""text files, vocabulary -> data/tokens (packed shards of blocks of N tokens, header)."""

import sys

import numpy as np
import torch

from vqlcmd.params import load_text
from vqlcmd.runtime import launcher, paths
from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.progress import Progress
from vqlcmd.text import blocks, corpus, vocabulary
from vqlcmd.tokens import shards


def run() -> None:
    """Tokenize all passages, split them into training and held-out text, and pack each of the two into blocks.

    The position of a block in the source is `blocks.place(file, token)` of its first token. Held-out blocks that occur
    in the training text are left out and counted.
    """
    params = load_text()
    listed = corpus.read(paths.MANIFESTS / f"{params.dataset}.json")
    symbols = vocabulary.load(paths.VOCABULARY)
    length = params.tokenize.block
    with Progress("tokenize", len(listed.files), unit="files") as progress:

        def files():
            for number, text in enumerate(corpus.texts(listed, paths.text_root())):
                yield (symbols.encode(passage) for passage in corpus.passages(text, symbols.reduction))
                progress.update(number + 1, 1)

        streams = blocks.deal(files(), params.tokenize.passage, params.tokenize.holdout)
    splits = {name: stream.blocks(length) for name, stream in streams.items()}
    if not len(splits["train"][0]):
        raise DataError(
            f"the text makes no block of {length} tokens for training: lower tokenize.block or tokenize.holdout"
        )
    tokens, places = splits["heldout"]
    known = blocks.occurs(tokens, streams["train"].tokens)
    splits["heldout"] = tokens[~known], places[~known]
    header = {
        "tokens": length,
        "grid": [1, length],
        "codes": symbols.codes,
        "classes": [],
        "text": params.text.model_dump(mode="json"),
        "passage": params.tokenize.passage,
        "holdout": params.tokenize.holdout,
        "heldout_copies_left_out": int(known.sum()),
        "manifest": {"name": listed.name, "digest": corpus.digest(listed)},
        # The key is named after the tokenizer of images, a VQGAN.
        "vqgan_digest": sha256(paths.VOCABULARY),
    }
    shards.write_shards(
        paths.TOKENS,
        {name: _split(*made) for name, made in splits.items()},
        header,
        params.tokenize.shard_blocks,
        torch.empty(symbols.codes, 0),
    )


def _split(tokens: np.ndarray, places: np.ndarray) -> shards.Split:
    index = torch.from_numpy(places)
    return shards.Split(torch.from_numpy(tokens.astype(np.int32)), torch.zeros_like(index), index)


def main() -> int:
    """Run the stage as `python -m stages.text.tokenize` does; returns the exit code."""
    return launcher.main("text.tokenize", run, parallel=False)


if __name__ == "__main__":
    sys.exit(main())
