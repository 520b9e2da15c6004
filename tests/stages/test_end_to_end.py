"""All stages in a temporary folder: what they leave behind, and that it can be had again."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from tests.conftest import STAGES, TINY, inside, merge, prepare, run_stages, write_params
from tests.pipeline_imports import ROOT
from vqlcmd.cli import export
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.tokens import shards


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path)
        for top in ("data", "metrics")
        for path in sorted((folder / top).rglob("*"))
        if path.is_file()
    }


def tokens(folder: Path) -> np.ndarray:
    return shards.read_split(folder / "data" / "samples", "samples").tokens.numpy()


def test_every_stage_leaves_what_dvc_yaml_says_it_does(finished: Path) -> None:
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values():
        for kind in ("outs", "metrics", "plots"):
            for out in stage.get(kind, []):
                assert (finished / (out if isinstance(out, str) else next(iter(out)))).exists(), out


def test_the_metrics_are_numbers_in_their_ranges(finished: Path) -> None:
    found = json.loads((finished / "metrics" / "evaluate.json").read_text(encoding="utf-8"))
    bound = json.loads((finished / "metrics" / "bound.json").read_text(encoding="utf-8"))
    assert found["fid_proxy"] > 0
    assert found["reconstruction"]["fid_proxy"] > 0
    for name in ("precision_proxy", "recall_proxy", "class_accuracy_proxy"):
        assert 0 <= found[name] <= 1
    assert found["nfe"] == TINY["sample_steps"] + 1
    assert found["generated_images"] == TINY["sample"]["count"]
    assert found["real_images"] == 1797
    assert 0 < bound["standard_error"] < bound["nats_per_token"]


def test_no_state_is_left_behind_by_a_run_that_ended_well(finished: Path) -> None:
    """The reconstructions that a fit of a tokenizer leaves to look at are no state."""
    left = {path for path in (finished / ".state").rglob("*") if path.is_file()}
    assert left == set((finished / ".state" / "logs").rglob("*.png"))


def test_the_curves_hold_every_term_and_what_to_watch(finished: Path) -> None:
    with (finished / "metrics" / "train.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [int(row["step"]) for row in rows] == [30, 60, 70]
    for name in (
        "loss",
        "rec",
        "diff",
        "cm",
        "grad_norm",
        "learning_rate",
        "embedding_norm",
        "embedding_rank",
        "ce_0.5",
    ):
        assert all(np.isfinite(float(row[name])) for row in rows), name


def test_the_same_parameters_give_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    again = prepare(tmp_path / "again", {})
    run_stages(again, *STAGES)
    assert digests(again) == digests(finished)


def test_another_sampling_batch_size_gives_the_same_samples(finished: Path, copy: Path) -> None:
    write_params(copy, merge(TINY, {"sample": {"batch_size": 7}}))
    run_stages(copy, "sample")
    assert (tokens(copy) == tokens(finished)).mean() >= 0.999
    assert len(np.unique(tokens(finished), axis=0)) > 40, "nothing is shown by samples that are all alike"


def test_another_seed_gives_other_samples(finished: Path, copy: Path) -> None:
    write_params(copy, merge(TINY, {"seed": 1}))
    run_stages(copy, "sample")
    assert (tokens(copy) == tokens(finished)).mean() < 0.9


def test_interrupted_sampling_goes_on_where_it_stopped(
    finished: Path, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vqlcmd.methods.lcmd import LCMD

    original, calls = LCMD.sample, []

    def fail_on_the_third(self: LCMD, label: Tensor | None, rng: CounterRNG, *args: object) -> object:
        # On tensors without numbers it is only counted what a run will cost.
        if rng.rows.device.type != "meta":
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
        return original(self, label, rng, *args)  # pyright: ignore[reportArgumentType]

    shutil.rmtree(copy / "data" / "samples")
    monkeypatch.setattr(LCMD, "sample", fail_on_the_third)
    with pytest.raises(KeyboardInterrupt):
        run_stages(copy, "sample")
    assert not (copy / "data" / "samples").exists()
    run_stages(copy, "sample")
    assert len(calls) == 4, "the two finished batches are not drawn again"
    assert digests(copy) == digests(finished)


def test_samples_of_another_vqgan_are_refused(copy: Path) -> None:
    with (copy / "data" / "vqgan.safetensors").open("ab") as file:
        file.write(b" ")
    with pytest.raises(DataError, match="different tokenizers"):
        run_stages(copy, "evaluate")


def test_decode_writes_png_files_and_an_npz_with_the_same_pixels(finished: Path, tmp_path: Path) -> None:
    with inside(finished):
        export.decode_samples(Path("data"), Path("data/samples"), tmp_path / "png", 12, None)
        export.decode_samples(Path("data"), Path("data/samples"), tmp_path / "samples.npz", 12, 100)
    pictures = sorted((tmp_path / "png").iterdir())
    assert [path.name for path in pictures][:2] == ["000000-0.png", "000001-1.png"]
    arrays = np.load(tmp_path / "samples.npz")
    assert arrays["arr_0"].shape == (12, 16, 16, 3)
    assert arrays["arr_0"].dtype == np.uint8
    assert arrays["arr_1"].tolist() == [*range(10), 0, 1]
    assert (np.stack([np.asarray(Image.open(path)) for path in pictures]) == arrays["arr_0"]).all()


def test_names_of_classes_that_no_disk_takes_are_changed_in_the_names_of_files(tmp_path: Path) -> None:
    """A model's file may come from anybody, and its classes' names become parts of files' names."""
    names = ["../../up", "a\0b", "\x1b[2J", "c" * 400, "Maine Coon \u732b"]
    export.write_images(torch.zeros(5, 3, 4, 4, dtype=torch.uint8), list(range(5)), names, tmp_path / "out")
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    expected = [".._.._up", "a_b", "_[2J", "c" * 200, "Maine Coon \u732b"]
    assert made == [f"{number:06}-{name}.png" for number, name in enumerate(expected)]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_python_interface_draws_the_class_one_asks_for(finished: Path) -> None:
    import vqlcmd

    model = vqlcmd.load(str(finished / "data"))
    assert model.class_names == tuple("0123456789")
    images = model.sample([3, 3, 7], steps=2, guidance=1.0)
    assert images.shape == (3, 3, 16, 16)
    alone = model.sample([3], steps=2, guidance=1.0)
    assert (images[0] == alone[0]).all(), "image 0 does not depend on what is drawn beside it"
    with pytest.raises(ConfigError, match="class 10 does not exist: choose 0 to 9"):
        model.sample([10])


def test_a_folder_of_mixed_pictures_runs_through_all_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vqlcmd.images import manifest

    pictures = tmp_path / "pictures" / "mixed"
    pictures.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(40):
        size = tuple(random.integers(12, 60, 2))
        mode, ending = (("RGB", "png"), ("L", "jpg"), ("RGBA", "png"), ("P", "gif"))[number % 4]
        image = Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).convert(mode)
        image.save(pictures / f"{number:02}.{ending}")
    folder = prepare(tmp_path / "run", {"dataset": "mixed", "vqgan": {"n_embed": 16}, "train": {"batch_size": 8}})
    manifest.write(manifest.scan("mixed", pictures), folder / "data" / "manifests" / "mixed.json")
    monkeypatch.setenv("VQLCMD_IMAGES", str(pictures.parent))
    run_stages(folder, *STAGES)
    found = json.loads((folder / "metrics" / "evaluate.json").read_text(encoding="utf-8"))
    assert found["is_proxy"] is None, "without classes an Inception Score would mean nothing"
    assert found["fid_proxy"] > 0
    write_params(folder, merge(TINY, {"dataset": "mixed", "guidance": 1.0}))
    with pytest.raises(ConfigError, match="needs classes"):
        run_stages(folder, "train")
