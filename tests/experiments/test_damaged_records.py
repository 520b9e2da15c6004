"""What DVC and earlier experiments left, damaged: one line, or as if it were not there."""

import json
import os
from pathlib import Path

import psutil
import pytest

from tests.conftest import inside
from tests.experiments.test_results import git, repository  # noqa: F401
from vqlcmd.experiments.identity import identity_of
from vqlcmd.experiments.queue import _alive, experiment_name
from vqlcmd.experiments.results import ResultsFile
from vqlcmd.experiments.table import base_values, load, runs
from vqlcmd.runtime.errors import DataError


@pytest.mark.parametrize("contents", ["{", "[]", '{"fid": ' + "9" * 5000 + "}", "[" * 10**5])
def test_an_experiment_with_damaged_numbers_is_one_line(
    repository: Path,  # noqa: F811
    contents: str,
) -> None:
    with inside(repository):
        run = runs(load("small"), base_values(None), [0])[0]
        identity = identity_of(run.params)
        (repository / "metrics/evaluate.json").write_text(contents, encoding="utf-8")
        git(repository, "commit", "--quiet", "--all", "--message", "damaged")
        git(repository, "update-ref", f"refs/exps/12/345/{experiment_name(run, identity)}", "HEAD")
        with pytest.raises(DataError, match=r"evaluate\.json of the experiment [0-9a-f]{8}\b.*: `dvc exp remove "):
            ResultsFile("small", base_values(None), None).collect(run, identity)


@pytest.mark.parametrize("contents", [None, "", "{", "[]", '{"pid": "x"}', '{"pid": -3}', "[" * 10**5, "9" * 5000])
def test_a_record_that_says_nothing_is_of_no_living_row(tmp_path: Path, contents: str | None) -> None:
    """DVC removes it when the row ends, maybe between listing and reading."""
    record = tmp_path / "row.json"
    if contents is not None:
        record.write_text(contents, encoding="utf-8")
    assert not _alive(record)
    own = tmp_path / f"{Path(psutil.Process().cmdline()[-1]).name}.json"
    own.write_text(json.dumps({"pid": os.getpid()}), encoding="utf-8")
    assert _alive(own)
