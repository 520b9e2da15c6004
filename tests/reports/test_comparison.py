"""`vqlcmd compare` and the pages: what differs is shown, what does not compare is said, and nothing is loaded."""

import html.parser
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import inside, merge
from tests.pipeline_imports import ROOT
from vqlcmd.cli.report import print_comparison, print_report
from vqlcmd.reports import page, revision
from vqlcmd.reports.charts import curves
from vqlcmd.reports.comparison import compare
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.yaml_file import read_yaml

WHO = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *WHO, *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def leave_params(folder: Path, changes: dict[str, Any] | None = None) -> None:
    """The demo's parameters, with changes."""
    values = merge(read_yaml(ROOT / "presets" / "digits.yaml"), changes or {})
    (folder / "params.yaml").write_text(json.dumps(values), encoding="utf-8")


def leave(folder: Path, changes: dict[str, Any], fid: float, **protocol: Any) -> None:
    """Parameters and metrics as a run leaves them: the demo's, with changes."""
    leave_params(folder, changes)
    found = json.loads((ROOT / "metrics" / "evaluate.json").read_text(encoding="utf-8"))
    (folder / "metrics" / "evaluate.json").write_text(json.dumps({**found, "fid_proxy": fid}), encoding="utf-8")
    made = json.loads((ROOT / "metrics" / "protocol.json").read_text(encoding="utf-8"))
    text = json.dumps([{**each, **protocol} for each in made])
    (folder / "metrics" / "protocol.json").write_text(text, encoding="utf-8")


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Path]:
    """A branch `base`, an experiment of DVC's, `wide-drop`, and another one as it lies here."""
    folder = tmp_path / "repository"
    shutil.copytree(ROOT / "metrics", folder / "metrics")
    git(tmp_path, "init", "--quiet", "--initial-branch=base", str(folder))
    for name, drop, fid in (("base", 0.2, 9.0), ("wide-drop", 0.5, 12.5)):
        leave(folder, {"drop": drop}, fid)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", name)
    # Where DVC keeps experiments; no branch has it.
    git(folder, "update-ref", "refs/exps/ab/cdef/wide-drop", "HEAD")
    git(folder, "reset", "--quiet", "--hard", "HEAD~1")
    leave(folder, {"drop": 0.0, "train": {"save_every": 7}}, 8.0)
    with inside(folder):
        yield folder


def read(*names: str) -> list[revision.Revision]:
    return [revision.read(name) for name in names]


def test_runs_are_labelled_by_what_was_varied_and_told_apart_by_numbers(repository: Path) -> None:
    made = compare(read("base", "wide-drop", "workspace"))
    assert made.labels == ("drop 0.2", "drop 0.5", "drop 0")
    assert made.varied == {"drop": ["0.2", "0.5", "0"], "train.save_every": ["200", "200", "7"]}
    assert made.numbers["fid_proxy"] == ["9", "12.5", "8"]
    found = json.loads((ROOT / "metrics" / "evaluate.json").read_text(encoding="utf-8"))
    assert made.numbers["fid_proxy of reconstructions"] == [f"{found['reconstruction']['fid_proxy']:.4g}"] * 3
    assert made.remarks == []


def test_many_changes_or_none_leave_a_run_its_name(repository: Path) -> None:
    assert compare(read("base", "HEAD")).labels == ("base", "HEAD")
    leave(repository, {"drop": 0.0, "s": 0.0, "lambda_cm": 0.0, "embedding_dim": 8}, 8.0)
    assert compare(read("base", "workspace")).labels == ("base", "workspace")


@pytest.mark.parametrize(
    ("changes", "protocol", "says"),
    [
        ({}, {"weights_sha256": "0" * 64}, r"do not compare: weights_sha256 [0-9a-f]{12}\.\.\., 0{12}\.\.\."),
        ({}, {"generated_images": 50}, "do not compare: generated_images 1797, 50"),
        ({"seed": 4}, {}, "The seeds differ"),
        ({}, {"of": "something"}, "workspace has no protocol"),
    ],
)
def test_what_speaks_against_a_comparison_is_said(
    repository: Path, changes: dict[str, Any], protocol: dict[str, Any], says: str
) -> None:
    leave(repository, changes, 8.0, **protocol)
    (remark,) = compare(read("base", "workspace")).remarks
    assert re.search(says, remark)


def test_the_commands_table_has_what_differs(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_comparison(["base", "wide-drop"], Path("both.html"))
    text = capsys.readouterr().out
    assert re.search(r"drop +│ +0\.2 │ +0\.5", text)
    assert re.search(r"fid_proxy +│ +9 │ +12\.5", text)
    assert (repository / "both.html").is_file()


def test_numbers_that_are_not_of_the_parameters_here_do_not_pass_for_theirs(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While training runs, and after Ctrl-C, metrics/ has the numbers of the run before."""
    print_comparison(["base", "workspace"], Path("both.html"))
    for text in (capsys.readouterr().out, (repository / "both.html").read_text(encoding="utf-8")):
        assert "workspace: No run was made here" in text
    print_comparison(["base", "workspace"], None, lambda: ["data/samples is older than params.yaml: drop 0.2 -> 0"])
    assert "workspace: data/samples is older than params.yaml: drop 0.2 -> 0" in capsys.readouterr().out
    print_comparison(["base", "wide-drop"], None)
    assert "No run was made" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "out", "error", "says"),
    [
        (["base", "nobody"], None, ConfigError, "nobody is no commit, branch, tag or experiment here"),
        (["base", "--all"], None, ConfigError, "--all is no commit"),
        (["base", "base"], None, ConfigError, "a name stands there twice"),
        (["base", "empty"], None, DataError, "empty has no metrics"),
        (["base", "broken"], None, DataError, "metrics/evaluate.json of broken is not JSON"),
        (["base", "workspace"], Path("x.pdf"), ConfigError, "x.pdf does not end in .html"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    repository: Path, names: list[str], out: Path | None, error: type[Exception], says: str
) -> None:
    git(repository, "switch", "--quiet", "--force-create", "broken")
    (repository / "metrics" / "evaluate.json").write_text("{")
    git(repository, "commit", "--quiet", "--all", "--message", "broken")
    git(repository, "switch", "--quiet", "--orphan", "empty")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "nothing")
    git(repository, "switch", "--quiet", "base")
    with pytest.raises(error, match=re.escape(says)) as caught:
        print_comparison(names, out)
    assert "\n" not in str(caught.value)


class Page(html.parser.HTMLParser):
    """Open tags, what they refer to, and the text."""

    def __init__(self, path: Path):
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_loads_nothing_and_holds_every_picture_and_number(repository: Path) -> None:
    run = revision.read("wide-drop")
    page.write_report(run, ["data/model is older than params.yaml"], Path("run.html"))
    found = Page(Path("run.html"))
    assert all(source.startswith("data:image/") for source in found.sources)
    assert "script" not in found.tags
    assert "link" not in found.tags
    assert len([source for source in found.sources if "image/png" in source]) == len(run.pictures) == 5
    assert len([source for source in found.sources if "image/svg" in source]) == len(page.PANELS)
    for row in run.numbers():
        assert all(cell in found.text for cell in row), row
    assert "data/model is older than params.yaml" in found.text
    assert "train.learning_rate" in found.text
    assert str(run.protocol[0]["weights_sha256"]) in found.text


def test_a_page_of_several_has_the_grids_beside_each_other(repository: Path) -> None:
    page.write_comparison(compare(read("base", "wide-drop", "workspace")), Path("all.html"))
    found = Page(Path("all.html"))
    assert len([source for source in found.sources if "image/png" in source]) == 3 * 5
    assert len([source for source in found.sources if "image/svg" in source]) == len(page.COMPARED)
    assert "The same place in two grids has the same class and the same random numbers." in found.text


def test_what_a_run_says_of_itself_is_text_and_no_markup(repository: Path) -> None:
    leave(repository, {"dataset": "<script>alert(1)</script>"}, 8.0, of="<img src=x>")
    page.write_report(revision.read(), ["<b>old</b>"], Path("run.html"))
    found = Page(Path("run.html"))
    assert not {"script", "b"} & set(found.tags)
    assert "<script>alert(1)</script>" in found.text
    assert "<b>old</b>" in found.text


def test_the_same_values_give_the_same_page(repository: Path) -> None:
    for name in ("one.html", "two.html"):
        page.write_comparison(compare(read("base", "wide-drop")), Path(name))
    assert Path("one.html").read_bytes() == Path("two.html").read_bytes()


def test_a_run_of_text_shows_its_samples_and_no_pictures_that_a_run_of_images_left(repository: Path) -> None:
    (repository / "metrics" / "samples.json").write_text('["the quick brown fox"]', encoding="utf-8")
    assert revision.read().samples == []
    leave(repository, {"domain": "text"}, 8.0)
    found = {"words_known": 0.5, "heldout": {"words_known": 0.9}, "compressed_bits_per_character": {"xz": 2.5}}
    (repository / "metrics" / "evaluate.json").write_text(json.dumps(found), encoding="utf-8")
    run = revision.read()
    assert not run.pictures
    made = compare([run, run])
    assert made.numbers["bits per character by xz of held-out text"] == ["2.5", "2.5"]
    assert "bits per character by xz" not in made.numbers
    page.write_comparison(made, Path("text.html"))
    assert "the quick brown fox" in Page(Path("text.html")).text
    assert revision.PICTURES["grid.png"] not in Page(Path("text.html")).text


def test_a_column_without_numbers_is_no_curve() -> None:
    assert curves("heldout_loss", {"a": ([1, 2], [float("nan")] * 2)}) is None
    drawn = curves("loss", {"a": ([1, 2], [3.0, 4.0]), "none": ([1, 2], [float("nan")] * 2)})
    assert drawn is not None
    assert "none" not in re.sub(r"style=\"[^\"]*\"", "", drawn).replace("{fill: none}", "")


def test_where_reconstructions_have_most_of_the_fid_a_line_names_the_tokenizer_and_what_to_turn(
    repository: Path,
) -> None:
    target = revision.read().evaluate["reconstruction"]["fid_proxy"]
    for share, checkpoint, named in ((0.4, None, ""), (0.6, None, "vqgan.n_embed"), (0.6, "f16.ckpt", "vqgan.init")):
        leave(repository, {"vqgan": {"checkpoint": checkpoint}}, fid=target / share)
        found = [note for note in revision.read().notes() if note.startswith("the tokenizer is the limit")]
        assert len(found) == bool(named)
        assert all(f"{target:.4g}" in note and named in note for note in found)


def test_the_first_numbers_of_a_report_are_those_of_the_tokenizer(repository: Path) -> None:
    psnr = json.loads((repository / "metrics" / "vqgan.json").read_text(encoding="utf-8"))["psnr"]
    assert revision.read().numbers()[0] == ("tokenizer: psnr", "", f"{psnr:.4g}")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"psnr": 14.8, "codes_used": 1.0}, ["smears, so samples will be: psnr is 14.8 dB", "vqgan.n_embed"]),
        ({"psnr": 23.2, "codes_used": 0.25}, ["uses 25% of its codes", "vqgan.fit.restart"]),
        ({"psnr": 23.2, "codes_used": 0.9}, []),
        ({"psnr": None}, []),
    ],
)
def test_after_the_tokenizer_alone_the_report_is_the_tokenizers_and_says_if_it_is_bad(
    repository: Path, capsys: pytest.CaptureFixture[str], found: dict[str, float | None], words: list[str]
) -> None:
    for path in (repository / "metrics").glob("*.json"):
        path.unlink()
    for path in (repository / "metrics").glob("train.*"):
        path.unlink()
    about = found | {"perplexity": 50.0, "fid_efficientnet": 61.5, "skipped": 3}
    (repository / "metrics" / "vqgan.json").write_text(json.dumps(about), encoding="utf-8")
    leave_params(repository)
    print_report(Path("tokenizer.html"))
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith("The tokenizer's reconstructions")
    assert all(word in text for word in ("perplexity", "tokenizer: fid_efficientnet", "61.5", "skipped", *words))
    assert ("docs/training_a_tokenizer.md" in text) == bool(words)
    assert "bound" not in text
    assert all(word in Page(Path("tokenizer.html")).text for word in words)


def test_a_given_tokenizer_alone_has_nothing_to_report(repository: Path) -> None:
    for path in (repository / "metrics").iterdir():
        if path.is_file():
            path.unlink()
    (repository / "metrics" / "vqgan.json").write_text('{"fitted": false, "assumed": {}}', encoding="utf-8")
    with pytest.raises(DataError, match="no samples were measured, and a given tokenizer has no metrics of its own"):
        print_report()
