"""vqlcmd infill, and scan, sample, decode and report on text."""

import shutil
from pathlib import Path

import pytest
import yaml

import vqlcmd
from tests.cli.test_main import vqlcmd as command
from tests.conftest import inside, run_stages
from tests.pipeline_imports import ROOT
from tests.texts import LENGTH, prepare, write_params
from vqlcmd.reports.text import print_report, stale
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.sharing.start import start


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage of text has run, with a method that can fill gaps."""
    folder = prepare(tmp_path_factory.mktemp("text"), {"method": "maskgit"})
    stages = ("text.vocabulary", "text.tokenize", "train", "sample", "bound", "text.reference", "text.evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQLCMD_TEXT", str(folder / "texts"))
        run_stages(folder, *stages)
    return folder


def test_only_the_blanks_are_drawn(written: Path) -> None:
    model = vqlcmd.load_text(str(written / "data"))
    filled = model.infill("The c__, on a _at", count=6)
    assert len(set(filled)) > 1
    for text in filled:
        # Reduced as the training text was.
        assert (text[:5], text[7:13], text[14:]) == ("the c", " on a ", "at")
        assert len(text) == len("the c__ on a _at") == LENGTH
    assert filled == model.infill("The c__, on a _at", count=6)
    assert filled[:2] == model.infill("The c##, on a #at", blank="#", count=2)
    assert filled != model.infill("The c__, on a _at", count=6, seed=1)


@pytest.mark.parametrize(
    ("text", "blank", "says"),
    [
        ("the cat", "_", "the text has no '_' to fill in"),
        ("____", "_", "the text has nothing but blanks to go by"),
        ("the cat sat on a ____", "_", f"the text has 21 tokens, and a block of this model has {LENGTH}"),
        ("the q__", "_", "the character 'q' is not in the vocabulary"),
        ("the c__", "__", "the blank is '__', but must be one character"),
        ("", "_", "the text has no '_' to fill in"),
    ],
)
def test_what_cannot_be_filled_in_is_one_line(written: Path, text: str, blank: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        vqlcmd.load_text(str(written / "data")).infill(text, blank=blank)


def test_an_autoregressive_model_says_that_it_fills_no_gaps(written: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "copy"))
    write_params(folder, {"method": "autoregressive", "train_steps": 1})
    run_stages(folder, "train")
    with pytest.raises(ConfigError, match="draws tokens in raster order and cannot hold others fixed"):
        vqlcmd.load_text(str(folder / "data")).infill("the c__")


def test_samples_depend_on_their_number_and_not_on_how_many_are_made(written: Path) -> None:
    model = vqlcmd.load_text(str(written / "data"))
    assert model.sample(5, batch_size=2) == model.sample(7)[:5]


def test_a_model_of_text_and_one_of_images_tell_each_other_apart(written: Path) -> None:
    with pytest.raises(DataError, match=r"is a model of text: `vqlcmd\.load_text` reads it"):
        vqlcmd.load(str(written / "data"))
    with pytest.raises(DataError, match=r"vocabulary\.json is missing"):
        vqlcmd.load_text(str(written))


def test_the_commands_write_what_the_model_does(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(written / "data", folder / "data")
    out = command(folder, "infill", "the c__", "--count", "3")
    assert out.returncode == 0, out.stderr
    model = vqlcmd.load_text(str(written / "data"))
    assert out.stdout.splitlines() == model.infill("the c__", count=3)
    assert command(folder, "sample", "--out", "drawn.txt", "--count", "4").returncode == 0
    assert (folder / "drawn.txt").read_text(encoding="utf-8").splitlines() == model.sample(4)
    done = command(folder, "decode", "--out", "all.txt")
    assert done.stdout == "40 texts in all.txt\n", done.stderr
    assert (folder / "all.txt").read_text(encoding="utf-8").splitlines()[:4] == model.sample(4)


def test_a_scan_writes_the_manifest_and_says_what_comes_next(written: Path, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    done = command(tmp_path, "scan", "tiny", str(written / "texts" / "tiny"), "--text")
    assert done.returncode == 0, done.stderr
    assert "data/manifests/tiny.json: 3 text files, " in done.stdout
    assert f"export VQLCMD_TEXT={written / 'texts'}\n" in done.stdout
    made = (tmp_path / "data" / "manifests" / "tiny.json").read_bytes()
    assert made == (written / "data" / "manifests" / "tiny.json").read_bytes()


def test_the_report_is_of_its_own_parameters_or_says_of_which_not(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(written, tmp_path / "copy"))
    with inside(folder):
        assert list(stale()) == []
        print_report()
        text = capsys.readouterr().out
        for name in ("words_known", "perplexity_proxy", "xz after training text", "this model, at most"):
            assert name in text
        write_params(folder, {"method": "maskgit", "sample_steps": 4})
        assert list(stale()) == ["data/samples is older than params.yaml: sample_steps 3 -> 4"]
        write_params(folder, {"method": "maskgit", "tokenize": {"block": 8}, "reference": {"seed": 9}})
        assert list(stale()) == [
            "data/tokens is older than params.yaml: tokenize.block 16 -> 8",
            "data/reference/language_model.safetensors is older than params.yaml: reference.seed 1 -> 9",
        ]
        shutil.rmtree("data/samples")
        assert "data/samples: not there" in next(iter(stale()))


@pytest.mark.parametrize(("preset", "pipeline"), [("text", "pipelines/text.yaml"), ("digits", "dvc.yaml")])
def test_a_new_folder_has_the_stages_of_its_presets_domain(preset: str, pipeline: str, tmp_path: Path) -> None:
    start(tmp_path / "new", preset)
    assert (tmp_path / "new" / "dvc.yaml").read_bytes() == (ROOT / pipeline).read_bytes()
    for stage in yaml.safe_load((tmp_path / "new" / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values():
        module = stage["cmd"].removeprefix("python -m ")
        assert (tmp_path / "new" / f"{module.replace('.', '/')}.py").is_file()
