"""Metrics are files: which are measured, how their values are named, and that none is missing without a reason."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipeline_imports import ROOT
from vqlcmd.evaluation import metrics
from vqlcmd.evaluation.comparison import Comparison, ImageSet, Measure, Samples
from vqlcmd.evaluation.moments import Moments
from vqlcmd.evaluation.nearest import Nearest
from vqlcmd.params import Evaluate, load_params, types
from vqlcmd.runtime.errors import ConfigError

DEMO = load_params(ROOT / "presets" / "digits.yaml").evaluate
# As somebody would add one: a file that nothing else in the code names.
SPREAD = '''"""How far features scatter around their mean."""

from vqlcmd.evaluation.comparison import Comparison, Measure

FEATURES = "features"


def measure(comparison: Comparison) -> dict[str, Measure]:
    """`spread`: the trace of the covariance."""
    return {"spread": Measure(comparison.generated.features.var(dim=0).sum().item())}
'''


def image_set(n: int, size: int = 6, seed: int = 0, classes: int | None = 5) -> ImageSet:
    features = torch.randn(n, size, generator=torch.Generator().manual_seed(seed))
    moments = Moments()
    moments.add(features)
    logits = None if classes is None else features.repeat(1, classes)[:, :classes]
    return ImageSet(n, moments.statistics(), features, features, logits)


def comparison(n: int, m: int, heldout: int = 30, classes: int | None = 5, **changes: Any) -> Comparison:
    tokens = torch.arange(4 * n).view(n, 4)
    near = Nearest(torch.ones(n), torch.zeros(n, dtype=torch.int64), torch.ones(heldout), 7)
    labels = torch.zeros(n, dtype=torch.int64) if classes else None
    samples = Samples(tokens, labels, tokens[:1], near)
    settings = Evaluate.model_validate(DEMO.model_dump() | changes)
    return Comparison(image_set(n, classes=classes), image_set(m, seed=1), settings, "cpu", samples)


def test_a_metric_is_a_file_and_its_name_in_params_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is touched, and it is named after the network and refused before it is there."""
    folder = tmp_path / "evaluation" / "metrics"
    folder.mkdir(parents=True)
    for file in (ROOT / "vqlcmd/evaluation/metrics").glob("*.py"):
        (folder / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(types, "__file__", str(tmp_path / "params" / "types.py"))
    with pytest.raises(ValueError, match=r"'class_accuracy', 'fid', .*input_value='spread'"):
        comparison(20, 20, metrics=["spread"])
    (folder / "spread.py").write_text(SPREAD, encoding="utf-8")
    monkeypatch.setattr(metrics, "__path__", [str(folder)])
    asked = comparison(20, 20, metrics=["spread"])
    assert metrics.measure(asked) == {"spread_proxy": pytest.approx(asked.generated.features.var(dim=0).sum().item())}


def test_an_unknown_metric_is_refused_with_the_names_of_the_others() -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.metrics: 'fdd' is not one of .*fid.*repeats"):
        metrics.select(["fid", "fdd"])


def test_every_file_of_metrics_is_in_the_demo_and_says_whose_features_it_reads() -> None:
    files = {file.stem for file in (ROOT / "vqlcmd/evaluation/metrics").glob("*.py")} - {"__init__"}
    assert set(DEMO.metrics) == files
    assert all(module.FEATURES in ("features", "precision_features", None) for module in metrics.select(DEMO.metrics))


def test_a_value_is_named_after_the_network_that_it_rests_on() -> None:
    found = metrics.measure(comparison(30, 40, features="efficientnet", precision_features="vgg16"))
    assert {"fid_efficientnet", "kid_efficientnet", "is_efficientnet", "precision_vgg16", "nearest_ratio_vgg16"} < set(
        found
    )
    assert "repeated_training_tokens" in found


@pytest.mark.parametrize("features", ["proxy", "dinov2"])
@pytest.mark.parametrize(("n", "m", "heldout", "classes"), [(1, 1, 0, None), (3, 40, 5, 5), (15, 15, 19, None)])
def test_every_value_that_is_missing_has_its_reason(
    features: str, n: int, m: int, heldout: int, classes: int | None
) -> None:
    found = metrics.measure(comparison(n, m, heldout, classes, features=features))
    missing = [name for name, value in found.items() if value is None]
    assert missing
    explained = [name for note in found["notes"] for name in note.partition(":")[0].split(", ")]
    assert set(missing) <= set(explained), found


def test_enough_images_leave_nothing_to_note() -> None:
    large = comparison(2100, 2100, kid={"subsets": 2, "subset_size": 50})
    found = metrics.measure(large)
    assert "notes" not in found, found["notes"]
    assert None not in found.values()


@pytest.mark.parametrize(
    ("n", "size", "caution"),
    [
        (2000, 6, "2,000 generated) for 6 features: biased upwards"),
        (2060, 2070, "2,060 generated) for 2,070 features: biased upwards"),
    ],
)
def test_fewer_images_than_2048_or_than_features_are_cautioned_about(n: int, size: int, caution: str) -> None:
    given = comparison(20, 20, metrics=["fid"])
    # Statistics of a few: what is tested is the note, and 2,070 numbers squared take a while.
    generated = replace(given.generated, count=n, features=torch.zeros(2, size))
    found = metrics.measure(replace(given, generated=generated, real=replace(given.real, count=5000)))
    assert caution in found["notes"][0]


def test_an_inception_score_of_one_image_in_each_split_is_no_score() -> None:
    """n images in n splits score 1 whatever they show."""
    found = metrics.measure(comparison(19, 40, metrics=["inception_score"]))
    assert found["is_proxy"] is None
    assert "always scores 1" in found["notes"][0]
    found = metrics.measure(comparison(20, 40, metrics=["inception_score"]))
    assert 1 <= found["is_proxy"] <= 2
    assert "at most 2" in found["notes"][0]


def test_reconstructions_are_not_asked_what_only_samples_can_answer() -> None:
    found = metrics.measure(replace(comparison(30, 40), samples=None))
    assert {"fid_proxy", "precision_proxy"} < set(found)
    assert not {"class_accuracy_proxy", "repeated_training_tokens", "nearest_ratio_proxy"} & set(found)


def test_class_accuracy_under_a_network_of_other_classes_is_none() -> None:
    found = metrics.measure(comparison(30, 40, features="efficientnet", metrics=["class_accuracy"]))
    assert found["class_accuracy_efficientnet"] is None


def test_a_metric_without_value_and_reason_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="fid"):
        metrics._notes({"fid": Measure(None)})
