"""What leaves a checkout and what is reported of a model of text."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vqlcmd
from tests.cli.test_main import vqlcmd as command
from tests.conftest import inside, run_stages
from tests.texts import prepare, write_params
from vqlcmd.cli import export as commands
from vqlcmd.reports import comparison, page, revision
from vqlcmd.reports.text import print_report
from vqlcmd.runtime import launcher
from vqlcmd.runtime.artefacts import exported
from vqlcmd.runtime.errors import ConfigError, DataError, Interrupted
from vqlcmd.runtime.files import sha256
from vqlcmd.sharing.export import export

DATA = Path("data")
METHOD = {"method": "maskgit", "train": {"sample_every": 30}}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage of text has run, with pictures on the way."""
    folder = prepare(tmp_path_factory.mktemp("text"), METHOD)
    stages = ("text.vocabulary", "text.tokenize", "train", "sample", "bound", "text.reference", "text.evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQLCMD_TEXT", str(folder / "texts"))
        run_stages(folder, *stages)
    return folder


@pytest.fixture(scope="module")
def given(written: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It, exported."""
    out = tmp_path_factory.mktemp("given") / "given"
    with inside(written):
        export(out, DATA, with_metrics=True)
    return out


def test_an_exported_model_of_text_samples_and_fills_in_the_same(written: Path, given: Path, tmp_path: Path) -> None:
    ours, moved = vqlcmd.load_text(str(written / "data")), vqlcmd.load_text(str(given))
    assert moved.sample(5) == ours.sample(5)
    assert moved.infill("the c__ on a _at", count=4) == ours.infill("the c__ on a _at", count=4)
    done = command(tmp_path, "infill", "the c__", "--count", "2", "--model", str(given))
    assert done.stdout.splitlines() == ours.infill("the c__", count=2), done.stderr
    about = json.loads((given / exported.ABOUT).read_text(encoding="utf-8"))
    files = {path.relative_to(given).as_posix() for path in given.rglob("*") if path.is_file()}
    assert set(about["digests"]) == files - {exported.ABOUT}
    assert all(about["digests"][name] == sha256(given / name) for name in about["digests"])
    assert (about["domain"], about["text"]["vocabulary"]) == ("text", "characters")


def test_its_card_has_its_numbers_its_samples_and_how_to_use_it(written: Path, given: Path) -> None:
    text = (given / "README.md").read_text(encoding="utf-8")
    found = json.loads((written / "metrics" / "evaluate.json").read_text())
    assert f"| words_known | {found['words_known']:.4g} | {found['heldout']['words_known']:.4g} |" in text
    assert f"| bits per character, at most | {found['bits_per_character']:.4g} ± " in text
    assert json.loads((written / "metrics" / "samples.json").read_text())[0] in text
    assert "vqlcmd.load_text" in text
    assert "pipeline_tag: text-generation" in text
    assert "language_model" in text


def test_a_damaged_vocabulary_or_the_wrong_reader_is_one_line(given: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(given, tmp_path / "given"))
    with pytest.raises(DataError, match=r"is a model of text: `vqlcmd\.load_text` reads it"):
        vqlcmd.load(str(out))
    (out / exported.VOCABULARY).write_bytes((out / exported.VOCABULARY).read_bytes() + b"\n")
    with pytest.raises(DataError, match=r"vocabulary\.json is not the file whose digest is in"):
        vqlcmd.load_text(str(out))


def test_without_metrics_and_numbers_of_another_model(written: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(written, tmp_path / "copy"))
    write_params(copy, {**METHOD, "sample_steps": 4})
    with inside(copy):
        with pytest.raises(DataError, match=r"older than params\.yaml: sample_steps 3 -> 4 .*--no-metrics"):
            export(tmp_path / "given", DATA, with_metrics=True)
        export(tmp_path / "given", DATA, with_metrics=False)
    assert "nothing is claimed" in (tmp_path / "given" / "README.md").read_text(encoding="utf-8")
    assert len(vqlcmd.load_text(str(tmp_path / "given")).sample(2)) == 2


def test_the_page_of_a_run_on_text_has_its_numbers_and_samples(written: Path, tmp_path: Path) -> None:
    with inside(written):
        print_report(tmp_path / "run.html")
        first = json.loads(Path("metrics/samples.json").read_text())[0]
    text = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert "held-out" in text
    assert "bits per character by xz" in text
    assert first in text
    assert "reconstructions" not in text


def test_runs_on_text_compare_and_one_on_images_beside_them_is_refused(
    written: Path, finished: Path, tmp_path: Path
) -> None:
    with inside(written):
        one = revision.read()
    other = Path(shutil.copytree(written, tmp_path / "copy"))
    write_params(other, {**METHOD, "sample_steps": 5})
    with inside(other):
        two = revision.read()
    made = comparison.compare([one, two])
    assert made.labels == ("sample_steps 3", "sample_steps 5")
    assert made.numbers["words_known of held-out text"][0]
    page.write_comparison(made, tmp_path / "two.html")
    assert (tmp_path / "two.html").read_text(encoding="utf-8").count("<figcaption>sample_steps") == 2
    with inside(finished), pytest.raises(ConfigError, match="is of text and workspace of images"):
        comparison.compare([one, revision.read()])


def test_samples_on_the_way_are_a_picture_of_lines(written: Path) -> None:
    (album,) = (written / ".state" / "logs").glob("train-*")
    names = sorted(path.name for path in album.iterdir())
    assert names == [
        *("0000030.png", "0000060.png"),
        *("embeddings-0000030.png", "embeddings-0000060.png"),
    ]
    with Image.open(written / "metrics" / "live.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    # 64 lines: dark writing on white, all the way down.
    assert all((band < 128).any() for band in np.array_split(pixels, 20))


def test_an_unfinished_training_on_text_draws_text(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(written, tmp_path / "copy"))

    @contextmanager
    def graceful() -> Iterator[Callable[[], bool]]:
        calls = iter(range(1, 10**6))
        yield lambda: next(calls) >= 20

    monkeypatch.setattr(launcher, "graceful", graceful)
    write_params(copy, {**METHOD, "seed": 5})
    with pytest.raises(Interrupted):
        run_stages(copy, "train")
    with inside(copy):
        commands.sample_text("data", Path("now.txt"), 3, state="newest")
        assert len(Path("now.txt").read_text(encoding="utf-8").splitlines()) == 3
        with pytest.raises(ConfigError, match=r"is a training on text: `vqlcmd sample --out FILE\.txt`"):
            commands.draw_gallery("data", Path("now.png"), None, 1, state="newest")
