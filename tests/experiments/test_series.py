"""Curves of a table's rows, out of its results: over training, and along the snapshots that a sweep samples."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import inside
from tests.pipeline_imports import ROOT
from vqlcmd.experiments import views
from vqlcmd.runtime.errors import DataError

CURVES = {"step": [10.0, 20.0], "embedding_norm": [5.0, 4.0]}


def result(row: str, seed: int, value: str | None, fid: float) -> dict[str, Any]:
    same = {"scale": "x", "curves": CURVES, "revision": "0" * 40, "identity": f"{row}{seed}{value}"}
    return {"row": row, "seed": seed, "value": value, "metrics": {"fid_proxy": fid}, **same}


def series(folder: Path, sweep: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """Of a table with the rows b and a, in this order."""
    (folder / "tables/results").mkdir(parents=True)
    shutil.copy(ROOT / "presets" / "digits.yaml", folder / "params.yaml")
    table = {"title": "t", "metrics": ["fid"], "sweep": sweep, "rows": {"b": {}, "a": {}}}
    (folder / "tables/small.yaml").write_text(json.dumps(table), encoding="utf-8")
    found = {"scales": {"x": {}}, "rows": rows}
    (folder / "tables/results/small.json").write_text(json.dumps(found), encoding="utf-8")
    with inside(folder):
        return views.series("small", None)


def test_a_table_has_the_columns_of_training_with_a_line_for_each_seed_in_the_tables_order(tmp_path: Path) -> None:
    rows = [result("a", 1, None, 3), result("a", 0, None, 3), result("b", 0, None, 3)]
    found = series(tmp_path, {}, rows)
    line = ([10.0, 20.0], [5.0, 4.0])
    assert found == {"embedding_norm": {"b": [line], "a": [line, line]}}
    assert list(found["embedding_norm"]) == ["b", "a"]


def test_a_sweep_of_weights_has_metrics_at_the_steps_of_the_snapshots_and_no_other_average(tmp_path: Path) -> None:
    values = {"model": 1.0, "snapshots/5": 9.0, "snapshots/10": 4.0, "ema-0.9": 7.0}
    rows = [result("a", 0, value, fid) for value, fid in values.items()]
    found = series(tmp_path, {"weights": list(values)}, rows)
    assert found["fid"] == {"a": [([5.0, 10.0, 20.0], [9.0, 4.0, 1.0])]}
    assert found["embedding_norm"] == {"a": [([10.0, 20.0], [5.0, 4.0])]}


def test_a_table_without_results_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no row of small has run: `vqlcmd table run small`"):
        series(tmp_path, {}, [])
