"""presets/*.yaml: whole parameter files, the same keys in all, and at the paper's scale what the paper prints."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipeline_imports import ROOT
from vqlcmd import methods
from vqlcmd.cli.plan import PUBLISHED, _bytes, _si
from vqlcmd.costs.plan import Data, plan
from vqlcmd.experiments.table import overridden, read_table, runs
from vqlcmd.params import Params, RunParams, check_params, load_params, load_run
from vqlcmd.runtime.yaml_file import read_yaml

PRESETS = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))
PAPER = ("ffhq", "imagenet", "lsun_bedrooms", "lsun_churches")
PAGES = {"ffhq": "ffhq", "imagenet": "imagenet", "lsun_bedrooms": "lsun", "lsun_churches": "lsun"}
TABLES = sorted((ROOT / "tables").glob("*.yaml"))


def preset(name: str) -> Path:
    return ROOT / "presets" / f"{name}.yaml"


def keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys in their order."""
    found: list[str] = []
    for key, value in values.items():
        found += keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
    return found


def test_the_papers_data_sets_have_presets() -> None:
    assert set(PAPER) < set(PRESETS)
    assert set(PAPER) == set(PUBLISHED) == set(PAGES)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_whole_parameter_file_with_the_keys_of_the_demo_in_their_order(name: str) -> None:
    params = load_run(preset(name))
    found, demo = keys(read_yaml(preset(name))), keys(read_yaml(preset("digits")))
    if not isinstance(params, Params):
        # What every domain has; the rest is its own, whose keys the model has checked.
        found, demo = ([key for key in each if key.split(".")[0] in RunParams.model_fields] for each in (found, demo))
    assert found == demo


def test_tests_lean_on_a_preset_and_not_on_params_yaml() -> None:
    """After the README's run on own pictures `make check` failed: the wrong values of a test were right beside them."""
    files = (ROOT / "tests").rglob("*.py")
    reading = {file.name for file in files if 'ROOT / "params.yaml"' in file.read_text(encoding="utf-8")}
    assert reading == {"test_params.py", "test_presets.py"}, "these look at params.yaml itself"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pictures", "text"])
def test_tests_of_parameters_pass_beside_somebodys_own(name: str, tmp_path: Path) -> None:
    """Whoever follows the first page has a params.yaml that is not the demo's, and runs `make check`."""
    for folder in ("vqlcmd", "stages", "tests", "presets", "tables", "docs", "pipelines", "data/manifests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("dvc.yaml", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, tmp_path / file)
    text = preset(name).read_text(encoding="utf-8")
    assert "train_steps:" in text
    (tmp_path / "params.yaml").write_text(re.sub("train_steps: .*", "train_steps: 3", text), encoding="utf-8")
    chosen = ["tests/test_params.py", "tests/repository/test_presets.py", "tests/repository/test_pipeline.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *chosen],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_params_yaml_has_the_keys_of_the_presets() -> None:
    values = read_yaml(ROOT / "params.yaml")
    assert keys(values) == keys(read_yaml(preset("text" if values["domain"] == "text" else "digits")))


@pytest.mark.parametrize("name", PAPER)
def test_every_value_at_the_papers_scale_says_whose_it_is(name: str) -> None:
    for line in preset(name).read_text(encoding="utf-8").splitlines():
        key, _, comment = line.partition(" # ")
        if re.fullmatch(r" *\w+: *\S.*", key):
            assert re.match(r"(paper|tokenizer|ours)\b", comment), line


@pytest.mark.parametrize(
    ("name", "parameters", "steps", "classes"),
    [
        ("ffhq", 56_070_400, 200, 0),
        ("lsun_churches", 56_070_400, 200, 0),
        ("lsun_bedrooms", 56_070_400, 200, 0),
        ("imagenet", 246_431_232, 50, 1000),
    ],
)
def test_the_papers_presets_have_what_the_paper_prints(name: str, parameters: int, steps: int, classes: int) -> None:
    """arXiv 2410.14758: 56M and 246M, 256 tokens of 1,024 codes, D = 256, batch 128, weights 1, 0.005, 1, drop 0.2."""
    params = load_params(preset(name))
    assert params.dataset == name
    found = plan(params, Data(*PUBLISHED[name]))
    assert (found.costs.parameters, params.sample_steps, found.sizes.classes) == (parameters, steps, classes)
    assert (found.sizes.tokens, found.sizes.codes, params.embedding_dim) == (256, 1024, 256)
    assert (params.lambda_rec, params.lambda_diff, params.lambda_cm, params.lambda_ce) == (1, 0.005, 1, 0)
    assert (params.train.batch_size, params.drop, params.dropping, params.network.dropout) == (128, 0.2, "fixed", 0.1)
    assert bool(params.guidance) == bool(classes)


@pytest.mark.parametrize("name", PAPER)
def test_enough_images_are_held_out_for_the_bound_and_not_many_more(name: str) -> None:
    assert 1000 < PUBLISHED[name][0] * load_params(preset(name)).tokenize.holdout < 2000


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_row_of_a_table_can_train_and_sample_at_the_papers_scale(path: Path) -> None:
    table = read_table(path)
    assert table.preset in (None, *PAPER)
    if table.preset is None:
        return
    base = overridden(read_yaml(preset(table.preset)), {"network.layers": 1})
    for run in runs(table, base, [0]):
        params = run.params
        assert isinstance(params, Params)
        with torch.device("meta"):
            codebook_KD = torch.empty(params.vqgan.n_embed, params.vqgan.embed_dim)
            method = methods.build(params.model_part(), codebook_KD, 256, PUBLISHED[table.preset][1])
        method.check(params.sampling())


@pytest.mark.parametrize("name", PAPER)
def test_every_method_can_take_the_place_of_vq_lcmd(name: str) -> None:
    for method_name in methods.METHODS:
        changes = {"method": method_name, "network.layers": 1}
        params = check_params(overridden(read_yaml(preset(name)), changes), name)
        with torch.device("meta"):
            method = methods.build(params.model_part(), torch.empty(1024, 256), 256, PUBLISHED[name][1])
        method.check(params.sampling())


@pytest.mark.parametrize("name", PAPER)
def test_a_page_says_how_to_use_the_preset(name: str) -> None:
    text = (ROOT / "docs" / f"{PAGES[name]}.md").read_text(encoding="utf-8")
    for words in (f"cp presets/{name}.yaml params.yaml", f"vqlcmd scan {name} ", f"vqlcmd plan --preset {name}"):
        assert words in text, words
    assert f"{PUBLISHED[name][0]:,}" in text


@pytest.mark.parametrize("name", PAPER)
def test_a_page_has_the_work_and_the_disk_space_that_the_plan_prints(name: str) -> None:
    text = (ROOT / "docs" / f"{PAGES[name]}.md").read_text(encoding="utf-8")
    made = plan(load_params(preset(name)), Data(*PUBLISHED[name]))
    rows = {line.strip("| ").split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    for stage, work in made.work().items():
        row = next((line for first, line in rows.items() if first.startswith(stage)), "")
        assert bool(work.flops) == bool(row), stage
        assert f" {_si(work.flops)} " in row or not row, f"{stage}: {_si(work.flops)}"
    names = ("tokens", "model", "samples", "features of the reference")
    for first, file in zip(names, ("tokens", "model", "samples", "reference"), strict=True):
        assert f" {_bytes(made.disk()[f'data/{file}'])} " in rows[first]
    assert f" {_bytes(made.state())} " in rows["state of an unfinished training, in `.state/`"]


@pytest.mark.parametrize("name", PAPER)
def test_a_page_has_the_papers_numbers(name: str) -> None:
    table = read_table(ROOT / "tables" / ("table3.yaml" if name == "imagenet" else f"table2_{name}.yaml"))
    text = (ROOT / "docs" / f"{PAGES[name]}.md").read_text(encoding="utf-8").partition("## What the paper reports")[2]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    shown = {cells[0]: [_number(cell) for cell in cells[1:]] for cells in rows}
    for row, entry in table.rows.items():
        if not entry.cited:
            numbers, width = entry.paper or [], len(entry.paper or [])
            found = shown[row]
            assert any(found[start : start + width] == numbers for start in range(len(found) - width + 1)), row


def _number(cell: str) -> float | str | None:
    if cell == "–":
        return None
    return float(cell) if re.fullmatch(r"[\d.]+", cell) else cell
