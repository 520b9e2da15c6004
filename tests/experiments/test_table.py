"""Tables: every row is possible, prints beside the paper's numbers, and an experiment is run once."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import inside
from tests.pipeline_imports import ROOT
from vqlcmd.experiments import runner
from vqlcmd.experiments.queue import Queue, experiment_name
from vqlcmd.experiments.results import ResultsFile
from vqlcmd.experiments.table import Table, differences, markdown, mean_and_spread, overridden, read_table, runs
from vqlcmd.params import Params, load_params
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.yaml_file import read_yaml

NAMES = sorted(path.stem for path in (ROOT / "tables").glob("*.yaml"))
BASE = read_yaml(ROOT / "presets" / "digits_table.yaml")
SMALL = Table.model_validate(
    {
        "title": "T",
        "metrics": ["fid", "precision"],
        "rows": {
            "ours": {"set": {"drop": 0.3}, "paper": [7.25, None]},
            "theirs": {"cited": True, "paper": [9.5, 0.4]},
            "also ours": {"set": {"guidance": 1}},
        },
    }
)
SWEPT = Table.model_validate(
    {"title": "T", "metrics": ["fid"], "sweep": {"sample_steps": [2, 5]}, "rows": {"a": {"paper": [3.0, 4.0]}}}
)


@pytest.mark.parametrize("preset", ["digits", "digits_table"])
@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_every_table_is_possible_on_the_digits(name: str, preset: str) -> None:
    table = read_table(ROOT / "tables" / f"{name}.yaml")
    found = runs(table, read_yaml(ROOT / "presets" / f"{preset}.yaml"), [0, 1])
    rows = [row for row in table.rows.values() if not row.cited]
    assert len(found) == 2 * len(rows) * len(table.values)
    if name != "table4":
        # Rows of one table that are the same experiment would be a row too many.
        assert len({run.params.model_dump_json() for run in found}) == len(found)


def test_a_row_lays_its_overrides_the_value_and_the_seed_over_the_base() -> None:
    one, other = runs(SWEPT, BASE, [3])
    assert (one.params.sample_steps, other.params.sample_steps, one.params.seed) == (2, 5, 3)
    assert one.params.model_dump(exclude={"sample_steps", "seed"}) == Params.model_validate(BASE).model_dump(
        exclude={"sample_steps", "seed"}
    )


def test_a_value_can_point_to_another_parameter() -> None:
    table = Table.model_validate(
        {"title": "T", "metrics": ["fid"], "rows": {"a": {"set": {"embedding_dim": "=vqgan.embed_dim"}}}}
    )
    assert runs(table, BASE, [0])[0].params.embedding_dim == BASE["vqgan"]["embed_dim"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drip": 0.3}, "drip is not a parameter"),
        ({"train.speed": 1}, "speed is not a parameter"),
        ({"drop": 3}, "row 'a': `drop` is 3"),
    ],
)
def test_an_impossible_row_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    table = Table.model_validate({"title": "T", "metrics": ["fid"], "rows": {"a": {"set": changes}}})
    with pytest.raises(ConfigError, match=message):
        runs(table, BASE, [0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rows": {"a": {"paper": [1, 2]}}}, "2 numbers of the paper for 1 columns"),
        ({"rows": {"a": {"cited": True}}}, "is cited"),
        ({"rows": {"a": {"sett": {}}}}, "rows.a.sett"),
        ({"rows": {}, "sweep": {"s": [1], "drop": [0]}}, "more than one knob"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(json.dumps({"title": "T", "metrics": ["fid"], **values}), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_table(path)


def test_differences_are_what_turns_one_preset_into_another() -> None:
    demo = read_yaml(ROOT / "presets" / "digits.yaml")
    changes = differences(demo, BASE)
    assert changes == {"network.layers": 3, "network.width": 96, "train_steps": 1200}
    assert overridden(demo, changes) == BASE
    flat = differences({}, BASE)
    assert flat["network.width"] == 96
    assert not any(isinstance(value, dict) for value in flat.values())


def test_a_table_prints_ours_beside_the_papers_and_marks_what_is_cited_or_has_not_run() -> None:
    seeds = [{"fid_proxy": 8.0, "nfe": 51}, {"fid_proxy": 10.0, "nfe": 51}]
    lines = markdown(SMALL, {("ours", None): seeds}).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells[0] == ["row", "fid", "paper fid", "precision", "paper precision", "nfe", "seeds"]
    assert cells[2] == ["ours", "9.00 ± 1.41", "7.25", "-", "", "51", "2"]
    assert cells[3] == ["theirs", "cited", "9.50", "cited", "0.400", "-", ""]
    assert cells[4] == ["also ours", "-", "", "-", "", "-", ""]


def test_a_sweep_prints_a_column_for_each_value() -> None:
    found = {("a", 5): [{"fid_inception": 7.0, "nfe": 6}]}
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown(SWEPT, found).splitlines()[2:]]
    assert cells[0] == ["row", "metric at sample_steps =", "2", "5"]
    assert cells[2:] == [
        ["a", "paper fid", "3.00", "4.00"],
        ["a", "fid", "-", "7.00"],
        ["a", "nfe", "-", "6"],
    ]


@pytest.mark.parametrize(
    ("values", "text"),
    [([], "-"), ([0.5], "0.500"), ([3, 3], "3"), ([1.0, 2.0, 3.0], "2.00 ± 1.00"), ([1234567], "1,234,567")],
)
def test_a_figure_is_a_mean_and_from_two_seeds_a_standard_deviation(values: list[Any], text: str) -> None:
    assert mean_and_spread([{"fid": value} for value in values], "fid") == text


def params(**changes: Any) -> Params:
    return Params.model_validate(overridden(BASE, changes))


def test_an_experiment_is_known_by_its_parameters_and_its_code(tmp_path: Path) -> None:
    with inside(ROOT):
        plain = runner._identity(params())
        assert runner._identity(params()) == plain
        others = [runner._identity(params(**changes)) for changes in ({"drop": 0.3}, {"seed": 1}, {"method": "d3pm"})]
        assert len({plain, *others}) == 4
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("vqlcmd", "stages", "data/manifests", "dvc.yaml"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", str(ROOT / name), str(copy / name)], check=True)
    with inside(copy):
        assert runner._identity(params()) == plain
        (copy / "vqlcmd/methods/d3pm.py").write_text("# touched\n", encoding="utf-8")
        assert runner._identity(params()) == plain, "the code of other methods does not count"
        (copy / "vqlcmd/diffusion/losses.py").write_text("# touched\n", encoding="utf-8")
        assert runner._identity(params()) != plain


def test_no_model_is_trained_by_two_experiments_at_once() -> None:
    table = Table.model_validate(
        {
            "title": "T",
            "metrics": ["fid"],
            "rows": {"a": {}, "b": {"set": {"guidance": 1}}, "c": {"set": {"drop": 0.1}}, "d": {"set": {"drop": 0}}},
        }
    )
    missing = {f"{run.row}{run.seed}": run for run in runs(table, BASE, [0, 1])}
    first, second = runner._waves(missing)
    assert sorted(first) == ["a0", "a1", "c0", "c1", "d0", "d1"]
    assert sorted(second) == ["b0", "b1"]


def git(folder: Path, *arguments: str) -> str:
    author = {f"GIT_{who}_{what}": "tests@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return subprocess.run(
        ["git", *arguments], cwd=folder, env={**os.environ, **author}, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A Git repository with a small table, and an experiment's commit as DVC leaves one."""
    for name in ("vqlcmd", "stages", "data/manifests", "dvc.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path / name)], check=True)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/small.yaml").write_text(json.dumps(SMALL.model_dump(exclude_defaults=True)), encoding="utf-8")
    (tmp_path / "params.yaml").write_text((ROOT / "presets/digits_table.yaml").read_text(encoding="utf-8"))
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "base")
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/evaluate.json").write_text('{"fid_proxy": 8.5, "nfe": 51}', encoding="utf-8")
    (tmp_path / "metrics/protocol.json").write_text('[{"of": "samples", "device": "cpu"}]', encoding="utf-8")
    (tmp_path / "metrics/bound.json").write_text('{"nats_per_token": 2.5}', encoding="utf-8")
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n", encoding="utf-8")
    (tmp_path / "metrics/train.tsv").write_text("step\tloss\tembedding_norm\n50\t3\t5.5\n100\t2\t4.5\n")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "experiment")
    return tmp_path


def test_finished_experiments_are_taken_over_once_and_shown(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with inside(repository):
        table, base = runner.load("small"), runner.base_values(None)
        run = runs(table, base, [0])[0]
        identity = runner._identity(run.params)
        book = ResultsFile("small", base, None)
        assert not book.collect(run, identity)
        git(repository, "update-ref", f"refs/exps/12/345/{experiment_name(run, identity)}", "HEAD")
        git(repository, "reset", "--quiet", "--hard", "HEAD~1")
        assert book.collect(run, identity)
        assert book.has(run, identity)
        assert book.collect(run, identity)
        assert len(book.rows()) == 1
        row = book.rows()[0]
        assert row["metrics"]["embedding_norm"] == 4.5
        assert row["metrics"]["protocol"] == [{"of": "samples", "device": "cpu"}]
        assert row["curves"] == {"step": [50, 100], "embedding_norm": [5.5, 4.5]}
        assert row["commit"] == git(repository, "rev-parse", "HEAD")
        shown = runner.show_table("small", None)
        assert "| ours " in shown
        assert "8.50" in shown
        assert row["commit"][:8] in shown
        # Another table with the same experiment takes it over without running it.
        (repository / "tables/other.yaml").write_text(
            json.dumps({"title": "O", "metrics": ["fid"], "rows": {"same": {"set": {"drop": 0.3}}}}), encoding="utf-8"
        )
        git(repository, "add", "--all")
        git(repository, "commit", "--quiet", "--message", "other")
        monkeypatch.setattr(Queue, "run", lambda *_: pytest.fail("nothing is to be run"))
        assert runner.run_table("other", [0], 1, None, say=lambda _: None)
        assert "8.50" in runner.show_table("other", None)


def test_a_table_of_one_stage_has_that_stages_numbers_alone(repository: Path) -> None:
    """What the other stages left in metrics/ is of the commit that the experiment started from."""
    small = {"title": "S", "stages": ["vqgan"], "metrics": ["psnr", "fid"], "rows": {"a": {"set": {"vqgan.ch": 8}}}}
    with inside(repository):
        (repository / "tables/small.yaml").write_text(json.dumps(small), encoding="utf-8")
        (repository / "metrics/vqgan.json").write_text('{"psnr": 22.5}', encoding="utf-8")
        git(repository, "add", "--all")
        git(repository, "commit", "--quiet", "--message", "experiment")
        table, base = runner.load("small"), runner.base_values(None)
        run = runs(table, base, [0])[0]
        identity = runner._identity(run.params, table.stages)
        git(repository, "update-ref", f"refs/exps/12/345/{experiment_name(run, identity)}", "HEAD")
        book = ResultsFile("small", base, None, table.stages)
        assert book.collect(run, identity)
        assert book.rows()[0]["metrics"] == {"psnr": 22.5}
        lines = runner.show_table("small", None).splitlines()
        assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["row", "psnr", "fid", "seeds"]
        assert [cell.strip() for cell in lines[4].strip("|").split("|")] == ["a", "22.50", "-", "1"]
        for draw in (lambda: runner.series("small", None), lambda: runner.curves("small", None, 0)):
            with pytest.raises(DataError, match="small runs vqgan alone and has no curves"):
                draw()


def test_uncommitted_changes_are_refused_since_rows_would_inherit_them(repository: Path) -> None:
    with inside(repository):
        # What `make demo` leaves on a processor that rounds otherwise.
        for name in ("metrics/evaluate.json", "dvc.lock"):
            (repository / name).write_text("{}", encoding="utf-8")
            assert name in git(repository, "status", "--porcelain", "--untracked-files=no")
        runner._raise_if_changed()
        (repository / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
        with pytest.raises(ConfigError, match=r"dvc\.yaml has changes that are not committed"):
            runner.run_table("small", [0], 1, None)


def test_an_unknown_table_is_refused_with_the_names_of_the_others() -> None:
    with inside(ROOT), pytest.raises(ConfigError, match=r"choose one of .*table1"):
        runner.load("table9")


def test_the_table_scale_differs_from_the_demo_in_size_alone() -> None:
    demo = load_params(ROOT / "presets" / "digits.yaml").model_dump()
    assert demo["vqgan"] == Params.model_validate(BASE).model_dump()["vqgan"]


def test_a_parameter_that_is_new_does_not_hide_results_and_one_that_changed_does(repository: Path) -> None:
    with inside(repository):
        base = runner.base_values(None)
        run = runs(runner.load("small"), base, [0])[0]
        old = ResultsFile("small", {**base, "vqgan": {key: base["vqgan"][key] for key in ("ch", "n_embed")}}, None)
        old._write(run, {"identity": "x", "seed": 0, "metrics": {"fid": 1.0}, "revision": "c" * 40})
        assert len(ResultsFile("small", base, None).rows()) == 1
        assert ResultsFile("small", overridden(base, {"vqgan.ch": 64}), None).rows() == []


@pytest.mark.parametrize("path", sorted((ROOT / "tables" / "results").glob("*.json")), ids=lambda path: path.stem)
def test_results_name_parameters_and_extractors_as_params_yaml_does(path: Path) -> None:
    """A scale under an old name is compared with nothing, and would pass for any other."""
    found = json.loads(path.read_text(encoding="utf-8"))
    stages = read_table(ROOT / "tables" / f"{path.stem}.yaml").stages
    assert {row["scale"] for row in found["rows"]} <= found["scales"].keys()
    for scale in found["scales"].values():
        assert scale.keys() <= differences({}, BASE).keys()
        assert scale["evaluate.features"] == BASE["evaluate"]["features"]
    for row in found["rows"]:
        assert row["overrides"].keys() <= differences({}, BASE).keys()
        assert stages or f"fid_{BASE['evaluate']['features']}" in row["metrics"]
