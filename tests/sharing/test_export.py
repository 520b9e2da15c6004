"""`vqlcmd export`: a folder that loads by itself, whose numbers are those of the model that lies in it."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import vqlcmd
from tests.conftest import TINY, inside, merge, run_stages, write_params
from vqlcmd.params import load_params
from vqlcmd.runtime.artefacts import exported
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.safetensors_file import load_weights, save_weights
from vqlcmd.sharing.export import export

DATA = Path("data")


def exports(folder: Path, out: Path, *, with_metrics: bool = True) -> dict[str, Any]:
    with inside(folder):
        export(out, DATA, with_metrics=with_metrics)
    return json.loads((out / exported.ABOUT).read_text(encoding="utf-8"))


def test_an_exported_folder_samples_the_same_bytes_and_holds_all_there_is_to_say(
    finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "given"
    about = exports(finished, out)
    with inside(tmp_path):
        moved = vqlcmd.load("given").sample([0, 7, 9])
    assert torch.equal(moved, vqlcmd.load(str(finished / "data")).sample([0, 7, 9]))
    assert about["sampling"] == vqlcmd.load(str(out)).about["sampling"]
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert set(about["digests"]) == files - {exported.ABOUT}
    assert all(about["digests"][name] == sha256(out / name) for name in about["digests"])
    assert load_params(out / "params.yaml") == load_params(finished / "params.yaml")


def test_the_card_has_the_numbers_of_the_run_and_their_protocol(finished: Path, tmp_path: Path) -> None:
    exports(finished, tmp_path / "given")
    text = (tmp_path / "given" / "README.md").read_text(encoding="utf-8")
    found, bound = (json.loads((finished / "metrics" / f"{name}.json").read_text()) for name in ("evaluate", "bound"))
    fid, target = found["fid_proxy"], found["reconstruction"]["fid_proxy"]
    assert f"| fid_proxy | {fid:.4g} | {target:.4g} |" in text
    assert f"{bound['nats_per_token']:.4g} ± {bound['standard_error']:.4g}" in text
    (protocol, _) = json.loads((finished / "metrics" / "protocol.json").read_text())
    assert f"weights_sha256 {protocol['weights_sha256']}" in text
    assert f"generated_images {protocol['generated_images']}" in text
    assert all(note in text for note in found["notes"])
    assert text.startswith("---\nlibrary_name: vqlcmd\n")
    for link in re.findall(r"\]\(([\w/.]+)\)", text):
        assert (tmp_path / "given" / link).is_file(), link


def test_numbers_of_another_model_do_not_go_along(copy: Path, tmp_path: Path) -> None:
    write_params(copy, merge(TINY, {"drop": 0.5}))
    with pytest.raises(DataError, match=r"older than params\.yaml: drop 0\.2 -> 0\.5 .*--no-metrics"):
        exports(copy, tmp_path / "given")
    assert not (tmp_path / "given").exists()
    about = exports(copy, tmp_path / "given", with_metrics=False)
    assert set(about["digests"]) == {"README.md", *exported.CHECKED}
    assert "nothing is claimed" in (tmp_path / "given" / "README.md").read_text(encoding="utf-8")


def test_the_exported_model_is_the_one_that_the_numbers_are_of(copy: Path, tmp_path: Path) -> None:
    write_params(copy, merge(TINY, {"weights": "best"}))
    # Another file than the last state, as after rows that got worse.
    best = copy / "data" / "model" / "best.safetensors"
    tensors, about = load_weights(best, "model")
    save_weights(best, "model", {name: tensor * 1.01 for name, tensor in tensors.items()}, about)
    run_stages(copy, "sample", "bound", "evaluate", "figures")
    exports(copy, tmp_path / "given")
    assert sha256(tmp_path / "given" / exported.MODEL) == sha256(best)
    assert sha256(best) != sha256(copy / "data" / exported.MODEL)


def test_a_folder_that_is_there_is_left_alone(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        exports(finished, tmp_path / "given")
    assert (tmp_path / "given" / "mine.txt").read_text() == "mine"


def test_a_model_elsewhere_has_no_metrics_here(finished: Path, tmp_path: Path) -> None:
    with inside(finished), pytest.raises(ConfigError, match="--no-metrics"):
        export(tmp_path / "given", finished / "data", with_metrics=True)


def test_a_damaged_or_mixed_up_folder_is_one_line(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "given"
    about = exports(finished, out)
    listing = out / exported.ABOUT
    model = (out / exported.MODEL).read_bytes()
    (out / exported.MODEL).write_bytes(model[:-1] + b"\0")
    with pytest.raises(DataError, match=r"model\.safetensors is not the file whose digest is in"):
        vqlcmd.load(str(out))
    (out / exported.MODEL).write_bytes(model)
    for broken, says in (
        ([], "lists no digests"),
        ({**about, "digests": {}}, "is not the file whose digest"),
        ({**about, "format": 2}, "is of format 2, and this version reads 1"),
    ):
        listing.write_text(json.dumps(broken), encoding="utf-8")
        with pytest.raises(DataError, match=says):
            vqlcmd.load(str(out))
    listing.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="is not JSON"):
        vqlcmd.load(str(out))
    shutil.rmtree(out / "model")
    listing.write_text(json.dumps(about), encoding="utf-8")
    with pytest.raises(DataError, match=r"model\.safetensors is missing"):
        vqlcmd.load(str(out))
