"""The command line: fast help, one-line errors, and the exit codes it promises."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import STAGES
from tests.factory import METHODS
from tests.pipeline_imports import ROOT
from vqlcmd.cli.main import main
from vqlcmd.runtime.errors import ConfigError


def vqlcmd(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vqlcmd.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_help_lists_every_stage_and_does_not_wait_for_pytorch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['vqlcmd', '--help']\n"
        "from vqlcmd.cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'webdataset', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(stage in done.stdout for stage in (*STAGES, "scan", "decode", "report"))


@pytest.mark.parametrize("command", [*STAGES, "scan", "decode", "report"])
def test_every_command_explains_itself(command: str) -> None:
    from typer.main import get_command
    from typer.testing import CliRunner

    from vqlcmd.cli.main import app

    done = CliRunner().invoke(app, [command, "--help"])
    assert done.exit_code == 0
    promise = get_command(app).commands[command].help or ""  # pyright: ignore[reportAttributeAccessIssue]
    assert len(promise.split()) > 3, "a command says what it does"
    assert " ".join(promise.split()) in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scan", "cats", "nowhere"], "nowhere"),
        (["scan", "my cats", "."], "letters, digits"),
        (["report"], "metrics/evaluate.json is missing"),
        (["sample", "--out", "x.png"], "--out x.png ends in .png: name a folder for PNG files"),
        (["sample", "--out", "x.JPG"], "--out x.JPG ends in .JPG: name a folder"),
        (["decode", "--out", "x.npy"], "--out x.npy ends in .npy: name a folder"),
        (["gallery", "x.jpg"], "x.jpg does not end in .png"),
        (["gallery", "x"], "x does not end in .png"),
        (["inpaint", "a.png", "b.png", "--out", "c.webp"], "c.webp does not end in .png"),
        (["table", "embeddings", "consistency", "x.pdf"], "x.pdf does not end in .png"),
        (["decode", "--out", "x"], "data/samples/header.json is missing"),
        (["sample", "--out", "x"], "data/model/model.safetensors is missing"),
        (["sample", "--count", "3", "--class", "1"], "--class, --count: needs --out DIR"),
        (
            ["sample", "--out", "x", "--temperature", "-1"],
            "--temperature is -1, but must be greater than or equal to 0",
        ),
        (["sample", "--out", "x", "--temperature", "nan"], "--temperature is nan, but must be "),
        (["sample", "--out", "x", "--truncation", "0"], "--truncation is 0, but must be greater than 0"),
        (["gallery", "x.png", "--truncation", "1.5"], "--truncation is 1.5, but must be less than or equal to 1"),
        (["gallery", "--temperature", "inf", "x.png"], "--temperature is inf, but must be a finite number"),
        (["gallery", "x.png", "--temperature", "warm"], "--temperature is warm, but must be a number"),
        (["gallery", "x.png", "--temperature"], "--temperature needs a value"),
        (["gallery", "x.png", "--stepz", "3"], "--stepz is no option, nor a knob of a method: did you mean --steps?"),
        (["gallery", "--out", "x.png"], "--out is no option, nor a knob of a method: write OUT alone, without --out"),
        (["gallery", "x.png", "--guidance", "0,-1"], "--guidance -1 must be a number from 0"),
        (["gallery", "x.png", "--state", "newest"], ".state/train holds no saved state"),
        (["report", "--html", "x.pdf"], "x.pdf does not end in .html"),
        (["compare", "main"], "main alone compares with nothing"),
        (["compare", "main", "workspace", "--html", "x"], "x does not end in .html"),
        (["export", "x"], "params.yaml is missing"),
        (["export", "x", "--no-metrics"], "data/model/model.safetensors is missing"),
        (["publish", "me/digits"], "me/digits is no place of the hub"),
        (["init", "."], ". has something in it already"),
    ],
)
def test_the_users_errors_are_one_line_and_exit_status_1(
    tmp_path: Path,
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["vqlcmd", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1, printed
    assert says in printed


@pytest.mark.parametrize(
    "command", [*STAGES, "report", "compare a b", "plan", "scan a .", "table list", "table run methods", "table show x"]
)
def test_in_a_wrong_folder_a_command_says_where_it_belongs_and_leaves_nothing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages asked for a preset, `table list` printed nothing, and `scan` made folders among somebody's pictures."""
    from typer.testing import CliRunner

    from vqlcmd.cli.main import app

    (tmp_path / "holiday.png").touch()
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command.split())
    assert isinstance(done.exception, ConfigError), done.output
    assert re.search("in the root of (one|a checkout)|in a checkout's root", str(done.exception))
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.png"]


def test_a_process_of_its_own_ends_likewise(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    done = vqlcmd(tmp_path, "train")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "params.yaml is missing: copy one" in done.stderr


def test_summaries_are_whole_sentences_and_there_are_a_version_and_completion(tmp_path: Path) -> None:
    """click cut them after 45 characters."""
    for arguments in (["--help"], ["table", "--help"]):
        done = vqlcmd(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
        assert "..." not in done.stdout.partition("Commands:")[2]
    assert "Nats per token on held-out images: model, tokens" in " ".join(vqlcmd(tmp_path, "--help").stdout.split())
    assert "--show-completion" in vqlcmd(tmp_path, "--help").stdout
    from vqlcmd import __version__

    assert vqlcmd(tmp_path, "--version").stdout == f"vqlcmd {__version__}\n"


@pytest.mark.parametrize(("count", "words"), [(1, "1 image in"), (2, "2 images in")])
def test_one_image_is_no_images(count: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from vqlcmd.cli.export import write_images

    write_images(torch.zeros(count, 3, 8, 8, dtype=torch.uint8), None, [], tmp_path / "out")
    assert capsys.readouterr().out.startswith(words)


@pytest.mark.parametrize("option", ["--steps=9", "--guidance=1", "--temperature=1", "--truncation=0.5", "--seed=0"])
def test_options_of_sampling_that_the_stage_would_not_read_are_refused(option: str) -> None:
    """`vqlcmd sample --steps 9` ran the stage with the steps of params.yaml, without a word."""
    from typer.testing import CliRunner

    from vqlcmd.cli.main import app

    done = CliRunner().invoke(app, ["sample", option])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith(f"{option.partition('=')[0]}: needs --out DIR")


@pytest.mark.parametrize("command", ["sample", "gallery", "inpaint"])
def test_help_lists_the_knobs_that_the_methods_declare(command: str) -> None:
    from typer.testing import CliRunner

    from vqlcmd import methods
    from vqlcmd.cli.main import app

    text = " ".join(CliRunner().invoke(app, [command, "--help"], terminal_width=200).output.split())
    for method, model in methods.knobs().items():
        for name, field in model.model_fields.items():
            assert f"--{name.replace('_', '-')} {method} {field.description}" in text


@pytest.mark.parametrize("command", [["sample", "--out"], ["gallery"]])
def test_options_of_sampling_reach_the_model_and_the_others_are_left_to_it(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from typer.testing import CliRunner

    import vqlcmd
    from vqlcmd.cli.main import app

    seen: list[dict[str, object]] = []

    class Model:
        class_names = ()
        about = {"sampling": {"guidance": 0.5}}  # noqa: RUF012

        def sample(self, classes: int, **how: object) -> torch.Tensor:
            seen.append(how)
            return torch.zeros(classes, 3, 8, 8, dtype=torch.uint8)

    monkeypatch.setattr(vqlcmd, "load", lambda folder: Model())
    ending = ".png" if command == ["gallery"] else ""
    for name, options in {
        f"a{ending}": [],
        f"b{ending}": ["--temperature=2", "--truncation", "0.5", "--steps=3", "--seed=4", "--precision=bf16"],
    }.items():
        done = CliRunner().invoke(app, [*command, str(tmp_path / name), *options], catch_exceptions=False)
        assert done.exit_code == 0
    told = [{key: value for key, value in how.items() if value is not None} for how in seen]
    asked = {"guidance": 0.5} if command == ["gallery"] else {}
    assert told[0] == asked
    assert told[1] == {**asked, "temperature": 2.0, "truncation": 0.5, "steps": 3, "seed": 4, "precision": "bf16"}


def test_scan_writes_a_manifest_and_says_what_comes_next(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "pets" / name / "1.png")
    (tmp_path / "pets" / "dog" / "2.heic").touch()
    refused = vqlcmd(tmp_path, "scan", "pets", "pets")
    assert "there is no dvc.yaml here" in refused.stderr
    assert not (tmp_path / "data").exists(), "nothing is left among somebody's pictures"
    (tmp_path / "dvc.yaml").touch()
    done = vqlcmd(tmp_path, "scan", "pets", "pets")
    assert done.returncode == 0, done.stderr
    assert "2 images, 2 classes" in done.stdout
    assert f"export VQLCMD_IMAGES={tmp_path}" in done.stdout
    assert "formats are not read: 1 .heic" in done.stdout
    assert "stay on one side of the split: 1: dog/1.png of cat/1.png" in done.stdout
    assert "git add data/manifests/pets.json && git commit" in done.stdout
    assert (tmp_path / "data/manifests/pets.json").is_file()


def test_scan_says_which_kind_it_found_and_which_classes_and_leaves_them_out_if_asked(tmp_path: Path) -> None:
    from tests.kinds import PICTURES, zipped

    zipped(tmp_path, PICTURES)
    (tmp_path / "dvc.yaml").touch()
    done = vqlcmd(tmp_path, "scan", "insects", "pictures.zip")
    assert "12 images, 3 classes (zip)" in done.stdout
    assert "--no-classes says that they are none: ant; bee; cat" in done.stdout
    done = vqlcmd(tmp_path, "scan", "insects", "pictures.zip", "--no-classes")
    assert "12 images, no classes (zip)" in done.stdout
    assert "ant" not in done.stdout


def test_the_manifest_of_the_digits_is_the_one_a_scan_makes(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").touch()
    assert vqlcmd(tmp_path, "scan", "digits", "sklearn-digits").returncode == 0
    made = (tmp_path / "data/manifests/digits.json").read_bytes()
    assert made == (ROOT / "data/manifests/digits.json").read_bytes()


def test_methods_are_listed_with_what_each_is_and_how_it_samples() -> None:
    from typer.testing import CliRunner

    from vqlcmd import methods
    from vqlcmd.cli.main import app

    listed = CliRunner().invoke(app, ["methods"]).output.splitlines()
    assert [line.split()[0] for line in listed[::2]] == list(METHODS)
    assert all(len(line.split()) > 4 for line in listed[::2])
    samplers = [line.partition("sampler: ")[2].split(" | ") for line in listed[1::2]]
    assert samplers == [list(methods.method_class(name).samplers) for name in METHODS]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory.\nGPU 0"), OSError(12, "memory")])
def test_a_command_without_memory_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vqlcmd.cli import main

    def app() -> None:
        raise error

    monkeypatch.setattr(main, "app", app)
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("vqlcmd: out of memory (")
    assert said.count("\n") == 1
