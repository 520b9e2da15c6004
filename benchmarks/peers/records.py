"""Batches of tokens out of our shards against the ways of others: files, records of webdataset, chunks of litdata.

Every way gives batches in a shuffled order, as far as it shuffles, as int64 tensors. All files are in the page cache.
"""

import importlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import sizes
from benchmarks.measure import Report, interleaved
from vqlcmd.tokens.shards import read_split, write_shards
from vqlcmd.tokens.streaming import StreamedSplit

BATCH, BUFFER, WINDOWS = 128, 1000, 4


def memory(folder: Path, tokens: np.ndarray) -> Callable[[], Iterator[object]]:
    """Ours, read once."""
    split = read_split(folder / "shards", "train")
    return lambda: (split.batch(0, step, BATCH)[0] for step in range(len(tokens) // BATCH))


def streamed(folder: Path, tokens: np.ndarray) -> Callable[[], Iterator[object]]:
    """Ours, in windows: a whole epoch with the wait for the first one."""

    def batches() -> Iterator[object]:
        split = StreamedSplit(folder / "shards", "train", len(tokens) // WINDOWS, torch.device("cpu"))
        for step in range(len(tokens) // BATCH):
            yield split.batch(0, step, BATCH)[0]
        split._reader.shutdown(cancel_futures=True)

    return batches


def files(folder: Path, tokens: np.ndarray) -> Callable[[], Iterator[object]]:
    """One .npy for each image, as LlamaGen keeps its codes."""
    (folder / "files").mkdir()
    for number, row in enumerate(tokens):
        np.save(folder / "files" / f"{number:06}.npy", row)
    order = np.random.default_rng(0)

    def batches() -> Iterator[object]:
        for part in np.array_split(order.permutation(len(tokens)), len(tokens) // BATCH):
            rows = [np.load(folder / "files" / f"{number:06}.npy") for number in part]
            yield torch.from_numpy(np.stack(rows).astype(np.int64))

    return batches


def webdataset(folder: Path, tokens: np.ndarray) -> Callable[[], Iterator[object]]:
    """One record for each image in a tar file, decoded and shuffled in a buffer by webdataset."""
    wds: Any = importlib.import_module("webdataset")
    path = folder / "records.tar"
    with tarfile.open(path, "w") as archive:
        for number, row in enumerate(tokens):
            file = io.BytesIO()
            np.save(file, row)
            member = tarfile.TarInfo(f"{number:06}.npy")
            member.size = len(file.getvalue())
            archive.addfile(member, io.BytesIO(file.getvalue()))

    def batches() -> Iterator[object]:
        records = wds.WebDataset(str(path), shardshuffle=False).shuffle(BUFFER).decode().to_tuple("npy")
        for (rows,) in records.batched(BATCH, partial=False):
            yield torch.from_numpy(np.asarray(rows).astype(np.int64))

    return batches


class _Rows:
    """What litdata's writer calls for each image."""

    def __init__(self, tokens: np.ndarray):
        self.tokens = tokens

    def __call__(self, number: int) -> Any:
        return torch.from_numpy(self.tokens[number].astype(np.int32))


def litdata(folder: Path, tokens: np.ndarray) -> Callable[[], Iterator[object]]:
    """One item for each image in chunks of litdata's, shuffled and loaded by it in this process."""
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")
    lit: Any = importlib.import_module("litdata")
    where = folder / "chunks"
    lit.optimize(_Rows(tokens), list(range(len(tokens))), str(where), chunk_bytes="8MB", num_workers=1, verbose=False)

    def batches() -> Iterator[object]:
        loader = lit.StreamingDataLoader(
            lit.StreamingDataset(str(where), shuffle=True), batch_size=BATCH, num_workers=0, drop_last=True
        )
        for rows in loader:
            yield rows.long()

    return batches


PEERS: dict[str, Callable[[Path, np.ndarray], Callable[[], Iterator[object]]]] = {
    "shards, in memory": memory,
    "shards, streamed": streamed,
    "one .npy per image": files,
    "webdataset, one record per image": webdataset,
    "litdata, one item per image": litdata,
}


def compare(report: Report, tiny: bool) -> None:
    """20,000 images of 256 tokens, an epoch of each way."""
    images = 4 * BATCH if tiny else 20_000
    size = sizes.unconditional(BATCH)
    split = size.split(images)
    tokens = split.tokens.numpy().astype(np.uint16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        header = {"tokens": size.tokens, "codes": size.codes, "classes": []}
        write_shards(folder / "shards", {"train": split}, header, max(images // 16, 1))
        works: dict[str, Callable[[], object]] = {}
        for way, make in PEERS.items():
            try:
                batches = make(folder, tokens)
            except ModuleNotFoundError as error:
                report.say(f"\n{way}: {error.name} is not installed")
                continue
            first = next(iter(islice(batches(), 1)))
            assert isinstance(first, torch.Tensor), way
            assert first.dtype == torch.int64, way
            assert first.shape[1] == size.tokens, way
            works[way] = partial(_through, batches)
        found = interleaved(works, 1 if tiny else 3)
    for way in works:
        report.row(
            tokens=way,
            images=f"{images:,}",
            images_per_second=f"{images / found.median(way):,.0f}",
            time_over_ours_streamed=report.ratio(f"records, {way}", found.ratio(way, "shards, streamed")),
        )


def _through(batches: Callable[[], Iterator[object]]) -> None:
    for _ in batches():
        pass
