"""A token set far larger than memory, in small: rows a second, memory, how well windows shuffle, and resumption.

`python -m benchmarks.studies.streaming --images 400000 --shard 4096 --window 50000`. Synthetic shards go into a folder
that is removed afterwards. The first two tokens of an image are its number, so that the order is read off the reader
itself; what 100 million images would take is arithmetic from there.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import Report, apart, computed, gigabytes, memory, peak_memory
from vqlcmd.runtime.machine import disable_malloc_trim
from vqlcmd.tokens.shards import ShardWriter, Split
from vqlcmd.tokens.streaming import StreamedSplit

CODES, LARGE = 2**15, 100_000_000


def write(folder: Path, images: int, tokens: int, shard: int) -> None:
    """Shards of random tokens; one shard at a time is in memory."""
    draws = torch.Generator().manual_seed(0)
    with ShardWriter(folder, shard) as writer:
        for start in range(0, images, shard):
            index = torch.arange(start, min(start + shard, images))
            rows = torch.randint(CODES, (len(index), tokens), generator=draws).to(torch.int16)
            rows[:, 0], rows[:, 1] = index // CODES, index % CODES
            writer.add("train", Split(rows, torch.zeros_like(index), index))
        writer.finish({"tokens": tokens, "codes": CODES, "classes": []})


def numbers(tokens_BN: Tensor) -> Tensor:
    """Of images, by their first two tokens."""
    return tokens_BN[:, 0] * CODES + tokens_BN[:, 1]


def stream(folder: str, window: int, batch: int, steps: int, first: int = 0) -> dict[str, Any]:
    """Batches `first` to `first + steps` in a process of its own: computing, bytes, a digest of the order."""
    disable_malloc_trim()
    split = StreamedSplit(Path(folder), "train", window, torch.device("cpu"))
    before, start, digest = memory(), computed(), 0
    for step in range(first, first + steps):
        for number in numbers(split.batch(0, step, batch)[0]).tolist():
            digest = (digest * 1_000_003 + number + 1) % 2**61
    seconds = computed() - start
    split._reader.shutdown(cancel_futures=True)
    return {"seconds": seconds, "bytes": peak_memory() - before, "digest": digest}


def order(folder: Path, window: int, batch: int, images: int) -> np.ndarray:
    """The images of one epoch, as they come."""
    split = StreamedSplit(folder, "train", window, torch.device("cpu"))
    found = [numbers(split.batch(0, step, batch)[0]) for step in range(images // batch)]
    split._reader.shutdown(cancel_futures=True)
    return torch.cat(found).numpy()


def quality(seen: np.ndarray, shard: int, batch: int) -> dict[str, str]:
    """How an order compares with a perfect shuffle.

    Displacement: mean distance of an image's place in the epoch from its place on the disk, as a share of the epoch; a
    third for a perfect shuffle. Rank correlation of both places: 0. Neighbours on the disk: the mean distance in the
    epoch of two images that lie side by side there: a third. Shard mates: of two images of a batch, how often they are
    of one shard.
    """
    # Ranks among those that were seen: the last images of an epoch share a batch with the next one.
    ranks = np.argsort(np.argsort(seen))
    at = np.argsort(ranks)
    shards = (seen // shard)[: len(seen) // batch * batch].reshape(-1, batch)
    mates = np.mean([(np.bincount(row) ** 2).sum() - batch for row in shards]) / (batch * (batch - 1))
    return {
        "displacement": f"{np.abs(ranks - np.arange(len(seen))).mean() / len(seen):.3f}",
        "rank_correlation": f"{np.corrcoef(ranks, np.arange(len(seen)))[0, 1]:+.3f}",
        "neighbours_apart": f"{np.abs(np.diff(at)).mean() / len(seen):.3f}",
        "shard_mates": f"{mates:.4f}",
    }


def study(report: Report, images: int, tokens: int, shard: int, window: int, batch: int) -> None:
    """All of it, for two sizes of the set and one of the window."""
    with tempfile.TemporaryDirectory() as name:
        for size in (images // 4, images):
            folder = Path(name) / str(size)
            start = computed()
            write(folder, size, tokens, shard)
            seconds = computed() - start
            steps = size // batch
            found = apart(stream, str(folder), window, batch, steps)
            rate = steps * batch / found["seconds"]
            disk = sum(512 * path.stat().st_blocks for path in folder.iterdir()) / size
            report.row(
                images=f"{size:,}",
                window=f"{window:,}",
                written_a_second_of_computing=f"{size / seconds:,.0f}",
                read_a_second_of_computing=f"{rate:,.0f}",
                memory=gigabytes(found["bytes"]),
                disk=f"{disk:.0f} bytes an image",
                of_100_million=f"{LARGE * disk / 1e9:.0f} GB, {LARGE / rate / 60:.0f} min an epoch",
            )
        whole, half = apart(stream, str(folder), window, batch, steps), steps // 2 + 3
        parts = [apart(stream, str(folder), window, batch, *at) for at in ((half, 0), (steps - half, half))]
        joined = (parts[0]["digest"] * pow(1_000_003, (steps - half) * batch, 2**61) + parts[1]["digest"]) % 2**61
        report.say(
            f"\nStopped at step {half} of {steps} and gone on by a new process: "
            f"{'the same order' if joined == whole['digest'] else 'ANOTHER ORDER'}."
        )
        for held in (shard, window, images):
            report.row(order=f"windows of {held:,}", **quality(order(folder, held, batch, images), shard, batch))
        perfect = np.random.default_rng(0).permutation(images)
        report.row(order="a perfect shuffle", **quality(perfect, shard, batch))


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("images", "shard", "window"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--batch", type=int, default=128)
    given = parser.parse_args()
    report = Report("studies.streaming", "a token set larger than memory, in small")
    study(report, given.images, given.tokens, given.shard, given.window, given.batch)


if __name__ == "__main__":
    main()
