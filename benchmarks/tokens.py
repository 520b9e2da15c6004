"""Batches of tokens out of memory, streamed from shards, and from a file for each image."""

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import torch

from benchmarks import sizes
from benchmarks.measure import Report, flags, interleaved
from vqlcmd.tokens.shards import read_split, write_shards
from vqlcmd.tokens.streaming import StreamedSplit

BATCH = 128
WINDOWS = 8
"""In which an epoch is streamed."""


def main(tiny: bool = False) -> dict[str, float]:
    """A million records of 256 tokens; files of 20,000 of them."""
    records, files, shard, batches = (2000, 300, 100, 3) if tiny else (1_000_000, 20_000, 8192, 400)
    report = Report("tokens", "batches of tokens")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = sizes.unconditional(BATCH)
        split = size.split(records)
        write_shards(
            folder / "tokens", {"train": split}, {"tokens": size.tokens, "codes": size.codes, "classes": []}, shard
        )
        (folder / "files").mkdir()
        for number, tokens in enumerate(split.tokens[:files].numpy().astype(np.uint16)):
            np.save(folder / "files" / f"{number:06}.npy", tokens)
        del split

        memory = read_split(folder / "tokens", "train")
        order = np.random.default_rng(0)
        steps: Iterator[int] = count()

        def from_memory() -> None:
            for _ in range(batches):
                memory.batch(0, next(steps), BATCH)

        def from_stream() -> None:
            streamed = StreamedSplit(folder / "tokens", "train", records // WINDOWS, torch.device("cpu"))
            for step in range(records // BATCH):
                streamed.batch(0, step, BATCH)
            # The first window of the next epoch is on its way, and would be in the way of what is timed next.
            streamed._reader.shutdown(cancel_futures=True)

        def from_files() -> None:
            for _ in range(batches // 20 + 1):
                chosen = order.integers(files, size=BATCH)
                torch.from_numpy(np.stack([np.load(folder / "files" / f"{i:06}.npy") for i in chosen]).astype(np.int64))

        found = interleaved({"memory": from_memory, "stream": from_stream, "files": from_files}, 1 if tiny else 3)
        each = {"memory": batches, "stream": records // BATCH, "files": batches // 20 + 1}
        rate = {name: each[name] * BATCH / found.median(name) for name in each}
        blocks = {
            "shards": (records, list((folder / "tokens").iterdir())),
            "files": (files, list((folder / "files").iterdir())),
        }
        disk = {name: sum(512 * path.stat().st_blocks for path in paths) / n for name, (n, paths) in blocks.items()}

    for name, source, images, bytes_each, targets in (
        ("memory", "shards, in memory", records, disk["shards"], ("≥ 20", "≥ 500,000")),
        ("stream", f"shards, streamed in {WINDOWS} windows, a whole epoch", records, disk["shards"], ("≥ 20", "")),
        ("files", "one .npy file per image, all in the page cache", files, disk["files"], ("", "")),
    ):
        report.row(
            source=source,
            images=f"{images:,}",
            batches_per_second=f"{rate[name] / BATCH:,.0f}",
            records_per_second=f"{rate[name]:,.0f}" + (f" (target {targets[1]})" if targets[1] else ""),
            against_files=report.ratio(name, rate[name] / rate["files"], targets[0]),
            bytes_on_disk_per_image=f"{bytes_each:,.0f}",
        )
    return report.ratios


if __name__ == "__main__":
    main(**flags("tiny"))
