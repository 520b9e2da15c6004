"""Results of tables: collected once from DVC's experiments, kept by scale, and shown."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import inside
from tests.experiments.test_table import SMALL
from tests.pipeline_imports import ROOT
from vqlcmd.experiments import runner, views
from vqlcmd.experiments.identity import identity_of
from vqlcmd.experiments.queue import Queue
from vqlcmd.experiments.results import ResultsFile, alone
from vqlcmd.experiments.table import Run, base_values, differences, experiment_name, load, overridden, read_table, runs
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.yaml_file import read_yaml


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
        table, base = load("small"), base_values(None)
        run = runs(table, base, [0])[0]
        identity = identity_of(run.params)
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
        shown = views.show_table("small", None)
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
        assert "8.50" in views.show_table("other", None)


def test_rows_and_seeds_can_be_chosen(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def run(_: Queue, wave: dict[str, Run], __: ResultsFile) -> list[str]:
        asked.extend((each.row, each.seed) for each in wave.values())
        return []

    monkeypatch.setattr(Queue, "run", run)
    with inside(repository):
        for seeds, rows in (([2], ["also ours"]), ([0, 3, 0], [])):
            asked.clear()
            runner.run_table("small", seeds, 1, None, rows, say=lambda _: None)
            expected = [(row, seed) for seed in dict.fromkeys(seeds) for row in rows or ("ours", "also ours")]
            assert sorted(asked) == sorted(expected)
        for wrong in ("our", "theirs"):
            with pytest.raises(ConfigError, match=f"no row '{wrong}' that runs: choose of ours; also ours"):
                runner.run_table("small", [0], 1, None, ["ours", wrong])


def test_a_table_of_one_stage_has_that_stages_numbers_alone(repository: Path) -> None:
    """What the other stages left in metrics/ is of the commit that the experiment started from."""
    small = {"title": "S", "stages": ["vqgan"], "metrics": ["psnr", "fid"], "rows": {"a": {"set": {"vqgan.ch": 8}}}}
    with inside(repository):
        (repository / "tables/small.yaml").write_text(json.dumps(small), encoding="utf-8")
        (repository / "metrics/vqgan.json").write_text('{"psnr": 22.5}', encoding="utf-8")
        git(repository, "add", "--all")
        git(repository, "commit", "--quiet", "--message", "experiment")
        table, base = load("small"), base_values(None)
        run = runs(table, base, [0])[0]
        identity = identity_of(run.params, table.stages)
        git(repository, "update-ref", f"refs/exps/12/345/{experiment_name(run, identity)}", "HEAD")
        book = ResultsFile("small", base, None, table.stages)
        assert book.collect(run, identity)
        assert book.rows()[0]["metrics"] == {"psnr": 22.5}
        for key, rows in (("train_steps", 1), ("vqgan.n_embed", 0)):
            other = overridden(base, {key: 77})
            assert len(ResultsFile("small", other, None, table.stages).rows()) == rows, "what the stage reads counts"
        lines = views.show_table("small", None).splitlines()
        assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["row", "psnr", "fid", "seeds"]
        assert [cell.strip() for cell in lines[4].strip("|").split("|")] == ["a", "22.50", "-", "1"]
        for draw in (lambda: views.series("small", None), lambda: views.curves("small", None, 0)):
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


def test_a_parameter_that_is_new_does_not_hide_results_and_one_that_changed_does(repository: Path) -> None:
    with inside(repository):
        base = base_values(None)
        run = runs(load("small"), base, [0])[0]
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
    # Text needs another dvc.yaml too, so its preset is copied to params.yaml: docs/text.md.
    preset = next((row["preset"] for row in found["rows"] if row["preset"]), "text")
    base = read_yaml(ROOT / "presets" / f"{preset}.yaml")
    needed = "bits_per_character" if base["domain"] == "text" else f"fid_{base['evaluate']['features']}"
    for scale in found["scales"].values():
        assert scale.keys() <= differences({}, base).keys()
        assert stages or scale.get("evaluate.features") == base["evaluate"].get("features")
    for row in found["rows"]:
        assert row["overrides"].keys() <= differences({}, base).keys()
        assert stages or needed in row["metrics"]


def test_a_second_table_does_not_run_beside_the_first_in_one_clone(repository: Path) -> None:
    """DVC stashes the checkout's files while it queues a row: what the other command wrote meanwhile was lost."""
    with inside(repository):
        with alone(), pytest.raises(ConfigError, match="a table is running in this clone: wait for it"):
            runner.run_table("small", [0], 1, None)
        with alone():
            pass
