"""`tokenize.holdout: 0`, the other end of it, and samples that are no multiple of the classes."""

import json
from pathlib import Path

import pytest

from stages.sample import balance_note, class_balance
from tests.conftest import STAGES, TINY, merge, prepare, run_stages, write_params
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.tokens import shards

SHORT = {"train_steps": 4, "train": {"log_every": 2}, "sample": {"count": 23}}


def metrics(folder: Path, name: str) -> dict[str, object]:
    return json.loads((folder / "metrics" / name).read_text(encoding="utf-8"))


@pytest.mark.slow
def test_without_held_out_images_all_stages_run_and_what_is_null_has_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It failed at `bound`, after training."""
    folder = prepare(tmp_path / "run", merge(SHORT, {"tokenize": {"holdout": 0}}))
    run_stages(folder, *STAGES)
    bound, found = metrics(folder, "bound.json"), metrics(folder, "evaluate.json")
    for values, name in ((bound, "nats_per_token"), (bound, "standard_error"), (found, "proxy_heldout_accuracy")):
        assert values[name] is None
        assert "tokenize.holdout is 0" in str(values[f"{name}_null"])
    assert bound["images"] == 0
    protocol = json.loads((folder / "metrics/protocol.json").read_text(encoding="utf-8"))
    assert protocol[0]["class_balance"] == {"drawn": 10, "of": 10, "least": 2, "most": 3}
    assert "sample: sample.count 23 is no multiple of 10 classes: 3 of them get 3 images" in capsys.readouterr().out


def test_one_held_out_image_has_a_bound_and_no_spread(copy: Path) -> None:
    header = shards.read_header(copy / "data" / "tokens")
    held = shards.read_split(copy / "data" / "tokens", "heldout")
    one = shards.Split(held.tokens[:1], held.labels[:1], held.index[:1])
    from vqlcmd.runtime.artefacts import belongs
    from vqlcmd.runtime.safetensors_file import load_weights, save_weights

    about = {key: value for key, value in header.items() if key not in ("format", "splits", "files")}
    shards.write_shards(copy / "data" / "tokens", {"heldout": one}, about, 4)
    tensors, said = load_weights(copy / "data/model/model.safetensors", "model")
    said["tokens_digest"] = belongs.header_digest(shards.read_header(copy / "data" / "tokens"))
    save_weights(copy / "data/model/model.safetensors", "model", tensors, said)
    run_stages(copy, "bound")
    found = metrics(copy, "bound.json")
    assert isinstance(found["nats_per_token"], float)
    assert found["standard_error"] is None
    assert "one number has no spread" in str(found["standard_error_null"])


def test_a_share_that_leaves_nothing_to_train_on_is_refused_before_the_work(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was a ZeroDivisionError in `train`."""
    write_params(copy, merge(TINY, {"tokenize": {"holdout": 0.999999}}))
    for stage in ("tokenize", "reference"):
        with pytest.raises(ConfigError, match=r"tokenize\.holdout 0\.999999 keeps all 1797 images from training"):
            run_stages(copy, stage)


def test_tokens_without_images_for_training_are_refused(copy: Path) -> None:
    header = shards.read_header(copy / "data" / "tokens")
    codebook = shards.read_codebook(copy / "data" / "tokens")
    held = shards.read_split(copy / "data" / "tokens", "heldout")
    nothing = shards.Split(held.tokens[:0], held.labels[:0], held.index[:0])
    about = {key: value for key, value in header.items() if key not in ("format", "splits", "files")}
    shards.write_shards(copy / "data" / "tokens", {"train": nothing, "heldout": held}, about, 4, codebook)
    with pytest.raises(DataError, match="holds no images for training"):
        run_stages(copy, "train")


@pytest.mark.parametrize(
    ("count", "classes", "drawn", "words"),
    [
        (20, 10, {"drawn": 10, "of": 10, "least": 2, "most": 2}, None),
        (23, 10, {"drawn": 10, "of": 10, "least": 2, "most": 3}, "3 of them get 3 images and 7 get 2"),
        (7, 10, {"drawn": 7, "of": 10, "least": 0, "most": 1}, "draws 7 of 10 classes"),
        (7, 0, {}, None),
    ],
)
def test_the_balance_of_classes_among_samples_is_counted_and_said(
    count: int, classes: int, drawn: dict[str, int], words: str | None
) -> None:
    assert class_balance(count, classes) == drawn
    counted = [sum(1 for i in range(count) if i % classes == label) for label in range(classes)]
    if classes:
        assert (min(counted), max(counted)) == (drawn["least"], drawn["most"])
        assert sum(map(bool, counted)) == drawn["drawn"]
    note = balance_note(count, classes)
    assert (note is None) == (words is None)
    assert words is None or (note is not None and words in note)
