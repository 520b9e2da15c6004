"""From tokens to features, the stage's own loop, against its parts; precision and recall against torch-fidelity's."""

import statistics
import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from unittest import mock

import torch
import yaml

from benchmarks import sizes
from benchmarks.measure import Report, alongside, apart, flags, gigabytes, memory, now, peak_memory
from benchmarks.tokenize import architecture
from stages import evaluate as stage
from vqlcmd.evaluation import proxy_classifier
from vqlcmd.evaluation.metrics.precision_recall import precision_recall
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.machine import disable_malloc_trim
from vqlcmd.runtime.safetensors_file import save_weights
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokens import shards
from vqlcmd.torchvision_guard import guard_torchvision

DIMENSIONS, PAPER, SMALLER = 4096, 50_000, 5000


def ours(count: int, dimensions: int) -> dict[str, float]:
    """Seconds, and bytes beyond the features, of precision and recall; torch-fidelity in chunks of our choice."""
    return _taken(precision_recall, count, dimensions)


def theirs(count: int, dimensions: int) -> dict[str, float]:
    """The same with torch-fidelity's own defaults."""
    guard_torchvision()
    from torch_fidelity.metric_prc import prc_features_to_metric

    return _taken(lambda one, two: prc_features_to_metric(one, two, verbose=False), count, dimensions)


def _taken(work: Callable[[torch.Tensor, torch.Tensor], object], count: int, dimensions: int) -> dict[str, float]:
    draws = torch.Generator().manual_seed(0)
    one, two = (torch.randn(count, dimensions, generator=draws) for _ in range(2))
    work(one[:10], two[:10])
    before, start = memory(), now()
    work(one, two)
    return {"seconds": now() - start, "bytes": peak_memory() - before}


def features(report: Report, tiny: bool) -> None:
    """Features per second of the demo's samples: the stage's loop, and its parts."""
    batch, repeats = (8, 2) if tiny else (256, 7)
    size = sizes.digits(evaluate={"batch_size": batch})
    with tempfile.TemporaryDirectory() as name, chdir(name):
        tokenizer = vqgan.VQGAN(architecture(size)).eval().requires_grad_(False)
        vqgan.save(tokenizer, paths.VQGAN, {})
        network = proxy_classifier.ProxyClassifier(size.classes).eval().requires_grad_(False)
        proxy_classifier.save_proxy(network, paths.REFERENCE / "proxy.safetensors")
        digest = sha256(paths.REFERENCE / "proxy.safetensors")
        about = {"weights_digest": digest, "precision_weights_digest": digest}
        real = {"real_features": torch.zeros(batch * (repeats + 2), proxy_classifier.DIMENSIONS)}
        save_weights(paths.REFERENCE / "features.safetensors", "reference", real, about)
        header = {
            "tokens": size.tokens,
            "codes": size.codes,
            "classes": list(map(str, range(size.classes))),
            "vqgan_digest": sha256(paths.VQGAN),
        }
        header["grid"] = list(tokenizer.grid(size.params.images.size, size.params.images.size))
        samples = size.split(batch * (repeats + 2))
        shards.write_shards(paths.SAMPLES, {"samples": samples}, header, len(samples))
        shards.write_shards(paths.TOKENS, {"train": samples}, header, len(samples))
        Path("params.yaml").write_text(yaml.safe_dump(size.params.model_dump(mode="json")), encoding="utf-8")

        pixels = torch.randint(256, (batch, 3, size.params.images.size, size.params.images.size)).to(torch.uint8)
        tokens = samples.tokens[:batch].long()
        works = {"decoder": lambda: tokenizer.decode(tokens), "extractor": lambda: network(pixels)}
        # What stands in for the other stages' results says nothing of where it comes from.
        with torch.no_grad(), mock.patch.object(belongs, "check_belong"):
            found = alongside(stage, stage.run, works, repeats)
    report.row(
        features_of=f"{batch} samples of {size.params.images.size} px, by the proxy classifier",
        stage=f"{batch / found.median('loop'):,.0f}/s",
        decoder_alone=f"{batch / found.median('decoder'):,.0f}/s",
        extractor_alone=f"{batch / found.median('extractor'):,.0f}/s",
        against_the_sum=report.ratio("features", 1 / found.ratio("loop", "decoder", "extractor"), "≥ 0.9"),
    )


def neighbours(report: Report, count: int, dimensions: int, repeats: int, *, here: bool = False) -> None:
    """Precision and recall of so many images, and what they would take of the paper's number."""
    ours_, theirs_ = [], []
    for _ in range(repeats):
        ours_.append(apart(ours, count, dimensions, here=here))
        theirs_.append(apart(theirs, count, dimensions, here=here))
    ratio = statistics.median(one["seconds"] / two["seconds"] for one, two in zip(ours_, theirs_, strict=True))
    grown = PAPER / count
    note = " (extrapolated)" if grown > 1 else ""
    # What is there before the first distance outweighs them at few images: ours is taken from more.
    more = min(3 * count, PAPER)
    larger = apart(ours, more, dimensions, here=here)["bytes"]
    for name, rounds in (("ours", ours_), ("torch-fidelity's defaults", theirs_)):
        seconds, taken = (statistics.median(each[key] for each in rounds) for key in ("seconds", "bytes"))
        mine = name == "ours"
        # All pairs are computed. Ours holds some rows of distances at a time, torch-fidelity all.
        held = larger * (PAPER / more) if mine else taken * grown**2
        report.row(
            precision_and_recall=f"{name}, {count:,} x {dimensions}",
            seconds=f"{seconds:.1f}",
            beyond_features=gigabytes(taken),
            seconds_at_50000=f"{seconds * grown**2:,.0f}{note}",
            beyond_at_50000=gigabytes(held) + note + (" (target ≤ 2 GB)" if mine else ""),
            against_torch_fidelity=report.ratio("precision and recall", ratio, "≤ 1") if mine else "",
        )


def main(tiny: bool = False, full: bool = False) -> dict[str, float]:
    """Both; precision and recall at 5,000 images, or with `full` at the paper's 50,000: minutes, and 40 GB."""
    disable_malloc_trim()
    report = Report("evaluate", "features, precision and recall")
    features(report, tiny)
    if tiny:
        neighbours(report, 100, 16, repeats=1, here=True)
    else:
        neighbours(report, PAPER if full else SMALLER, DIMENSIONS, repeats=1 if full else 2)
    return report.ratios


if __name__ == "__main__":
    main(**flags("tiny", "full"))
