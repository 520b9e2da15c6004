"""FID, Inception Score, precision and recall of the same features: our functions and torch-fidelity's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.measure import Report, interleaved, milliseconds
from vqlcmd.evaluation.frechet import frechet_distance
from vqlcmd.evaluation.metrics.inception_score import SPLITS, inception_score
from vqlcmd.evaluation.metrics.precision_recall import precision_recall
from vqlcmd.evaluation.moments import Moments, Statistics
from vqlcmd.torchvision_guard import guard_torchvision

BATCH, NEIGHBOURS, CLASSES = 64, 3, 100


def streamed(features: torch.Tensor, batch: int = BATCH) -> Statistics:
    """Of features (N, D), as the stages do: batch by batch, and no feature is kept."""
    moments = Moments()
    for part in features.split(batch):
        moments.add(part)
    found = moments.statistics()
    assert found is not None
    return found


def compare(report: Report, tiny: bool) -> None:
    """Features are normal numbers: 512 of them for FID and 4,096 for precision, as Inception's and VGG's are more."""
    guard_torchvision()
    from torch_fidelity import metric_fid, metric_isc, metric_prc

    count, size, wide = (100, 8, 16) if tiny else (4000, 512, 4096)
    draws = torch.Generator().manual_seed(0)
    one, two = (torch.randn(count, size, generator=draws) for _ in range(2))
    logits = torch.randn(count, CLASSES, generator=draws)
    near, far = (torch.randn(count // 2, wide, generator=draws) for _ in range(2))

    def fid_there() -> Any:
        sides = [metric_fid.fid_features_to_statistics(each) for each in (one, two)]
        return metric_fid.fid_statistics_to_metric(*sides, verbose=False)[metric_fid.KEY_METRIC_FID]

    def isc_there() -> Any:
        score = metric_isc.isc_features_to_metric(logits, splits=SPLITS, shuffle=True, rng_seed=2020)
        return score[metric_isc.KEY_METRIC_ISC_MEAN]

    def prc_there() -> Any:
        return metric_prc.prc_features_to_metric(near, far, prc_neighborhood=NEIGHBOURS, verbose=False)[
            metric_prc.KEY_METRIC_PRECISION
        ]

    def moments(features: torch.Tensor) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """Of FID: what is done for each set; the trace of its covariance."""
        return (
            lambda: streamed(features).covariance.trace(),
            lambda: metric_fid.fid_features_to_statistics(features)["sigma"].trace(),
        )

    inception = torch.randn(count // 2, 16 if tiny else 2048, generator=draws)
    rows = {
        f"moments, {count} x {size}": moments(one),
        f"moments, {count // 2} x {inception.shape[1]}": moments(inception),
        f"FID, {count} x {size}": (lambda: frechet_distance(streamed(one), streamed(two)), fid_there),
        f"Inception Score, {count} x {CLASSES}": (lambda: inception_score(logits)[0], isc_there),
        f"precision and recall, {count // 2} x {wide}": (
            lambda: precision_recall(near, far, NEIGHBOURS, "cpu")[0],
            prc_there,
        ),
    }
    for name, (ours, theirs) in rows.items():
        found = interleaved({"ours": partial(ours), "theirs": partial(theirs)}, 1 if tiny else 5)
        mine, other = float(ours()), float(theirs())
        report.row(
            metric=name,
            peer="torch-fidelity",
            ours=milliseconds(found.median("ours")),
            theirs=milliseconds(found.median("theirs")),
            theirs_over_ours=report.ratio(name, found.ratio("theirs", "ours"), "≥ 1"),
            same=f"{mine:.6g} and {other:.6g}",
        )
