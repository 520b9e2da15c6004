"""`vqlcmd table embeddings`: what is drawn of which row, and what is not and why."""

from pathlib import Path

import pytest

from tests.factory import TOKENS, build, codebook, params
from vqlcmd import figures
from vqlcmd.cli import export
from vqlcmd.experiments import table, views
from vqlcmd.experiments.table import Table
from vqlcmd.methods import save_method
from vqlcmd.runtime.errors import DataError


def test_a_picture_of_embeddings_says_of_each_row_what_is_missing_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows without a model lack their distances alone; a row that has not run is missing; neither without a word."""
    made, drawn = {"step": [1.0], "embedding_norm": [2.0]}, []
    header = {"tokens": TOKENS, "grid": [1, TOKENS], "classes": [], "vqgan_digest": "0" * 64}
    save_method(tmp_path / "a.safetensors", build(), params(), header, codebook())
    (tmp_path / "b.safetensors").write_bytes(b"of another version")
    small = Table.model_validate({"title": "S", "metrics": ["fid"], "rows": {each: {} for each in "adbc"}})
    found = {row: {"revision": row, "curves": made} for row in "abc"}

    def fetch(revision: str, _: Path) -> Path:
        if revision == "c":
            raise DataError("the model of c is not in this clone's cache: run the table here")
        return tmp_path / f"{revision}.safetensors"

    monkeypatch.setattr(table, "load", lambda _: small)
    monkeypatch.setattr(views, "curves", lambda *_: found)
    monkeypatch.setattr(views, "fetch_model", fetch)
    monkeypatch.setattr(figures, "collapse", lambda curves, tables, _: drawn.extend([curves, tables]))
    export.draw_collapse("small", tmp_path / "x.png", None, 0)
    curves, tables = drawn
    assert (list(curves), list(tables)) == (["a", "b", "c"], ["a"])
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("x.png: 3 of 4 rows of small, seed 0")
    assert said[1] == "left out: d, which has not run with seed 0"
    assert said[2].startswith(f"without its distances: b, since {tmp_path / 'b.safetensors'} ")
    assert said[3].startswith("without its distances: c, since the model of c is not in this clone's cache")
