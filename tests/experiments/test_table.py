"""Tables: every row is possible, prints beside the paper's numbers, and an experiment is run once."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import inside
from tests.pipeline_imports import ROOT
from vqlcmd.experiments import runner
from vqlcmd.experiments.identity import identity_of
from vqlcmd.experiments.table import Table, differences, load, markdown, mean_and_spread, overridden, read_table, runs
from vqlcmd.params import Params, load_params
from vqlcmd.runtime.errors import ConfigError
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
        (
            {"rows": {"a": {"teacher": "b"}, "b": {}}, "stages": ["vqgan"]},
            "'a' has a teacher: the table runs all stages",
        ),
        ({"rows": {"a": {"teacher": "b", "set": {"distill.teacher": "c"}}, "b": {}}}, "sets no distill.teacher"),
        ({"rows": {"a": {"teacher": "b"}}}, "row 'a' has the teacher 'b', which is no row that learns by itself"),
        ({"rows": {"a": {"teacher": "b"}, "b": {"teacher": "a"}}}, "the teacher 'b', which is no row that learns"),
        ({"rows": {"a": {"teacher": "b"}, "b": {"cited": True, "paper": [1]}}}, "the teacher 'b', which is no row"),
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
        plain = identity_of(params())
        assert identity_of(params()) == plain
        others = [identity_of(params(**changes)) for changes in ({"drop": 0.3}, {"seed": 1}, {"method": "d3pm"})]
        assert len({plain, *others}) == 4
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("vqlcmd", "stages", "data/manifests", "dvc.yaml"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", str(ROOT / name), str(copy / name)], check=True)
    with inside(copy):
        assert identity_of(params()) == plain
        (copy / "vqlcmd/methods/d3pm.py").write_text("# touched\n", encoding="utf-8")
        assert identity_of(params()) == plain, "the code of other methods does not count"
        (copy / "vqlcmd/diffusion/losses.py").write_text("# touched\n", encoding="utf-8")
        assert identity_of(params()) != plain


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


def test_an_unknown_table_is_refused_with_the_names_of_the_others() -> None:
    with inside(ROOT), pytest.raises(ConfigError, match=r"choose one of .*table1"):
        load("table9")


def test_the_table_scale_differs_from_the_demo_in_size_alone() -> None:
    demo = load_params(ROOT / "presets" / "digits.yaml").model_dump()
    assert demo["vqgan"] == Params.model_validate(BASE).model_dump()["vqgan"]
