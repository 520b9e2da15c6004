"""The wheel in an environment of its own, used from another folder: what needs only a model works there. Slow."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vqlcmd
from tests.conftest import TINY, write_params
from tests.factory import build, codebook, params
from tests.pipeline_imports import ROOT
from tests.tokenizers import SMALL, seeded
from vqlcmd import methods
from vqlcmd.runtime.files import sha256
from vqlcmd.sharing.export import export
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokens import shards

pytestmark = pytest.mark.slow
SIZE, GRID = 16, [4, 4]
WHO = ("-c", "user.name=tests", "-c", "user.email=tests@example.org")
IMAGES = {"size": SIZE, "resize": "box", "crop": "center", "flip": False, "background": "white", "skip_broken": False}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since building leaves folders behind."""
    source = tmp_path_factory.mktemp("source")
    for name in ("vqlcmd", "stages", "pipelines", "presets", "tables"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "dvc.yaml",
        ".dvcignore",
        ".gitignore",
        ".dvc/config",
        ".dvc/.gitignore",
        "data/manifests/digits.json",
    ):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist")]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next((source / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, which finds what the wheel depends on where this test does."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    install = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    # Without PYTHONPATH: the checkout that it names holds an .egg-info, which pip would take for the wheel installed.
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], env=alone, check=True)
    # Afterwards, so that nothing here is taken for installed. Of a folder that a .pth names, its own are not read:
    # the checkout, which is installed there by one, is not found.
    packages = next(folder.glob("lib/python*/site-packages"))
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n", encoding="utf-8")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a model of ten classes, its tokenizer, and samples."""
    folder = tmp_path / "given"
    vqgan.save(seeded(SMALL), folder / "vqgan.safetensors", {})
    header = {
        "tokens": 16,
        "grid": GRID,
        "codes": SMALL.n_embed,
        "classes": [f"class {number}" for number in range(10)],
        "vqgan_digest": sha256(folder / "vqgan.safetensors"),
    }
    method = build(tokens=16, codes=SMALL.n_embed, classes=10)
    about = {**header, "images": IMAGES}
    methods.save_method(folder / "model" / "model.safetensors", method, params(), about, codebook(SMALL.n_embed))
    drawn = shards.Split(torch.zeros(3, 16, dtype=torch.int64), torch.tensor([0, 1, 2]), torch.arange(3))
    shards.write_shards(folder / "samples", {"samples": drawn}, header, 3)
    return folder


def run(environment: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = command
    clean = {
        "PATH": f"{environment / 'bin'}:/usr/bin:/bin",
        "DVC_NO_ANALYTICS": "1",
        "HOME": str(folder),
        "OMP_NUM_THREADS": "1",
    }
    words = [str(environment / "bin" / program), *arguments]
    return subprocess.run(words, cwd=folder, env=clean, capture_output=True, text=True, timeout=1800, check=False)


def test_the_wheel_holds_vqlcmd_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"vqlcmd"}
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "vqlcmd").rglob("*.py")}
    stages = {f"vqlcmd/starter/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "stages").rglob("*.py")}
    assert ours | stages == {name for name in names if name.endswith(".py")}
    assert {"vqlcmd/reports/page.html", "vqlcmd/starter/dvc.yaml", "vqlcmd/starter/.dvc/config"} <= set(names)


def test_a_pipeline_from_the_wheel_runs_and_its_code_is_its_own(environment: Path, tmp_path: Path) -> None:
    done = run(environment, tmp_path, "vqlcmd", "init", "mine")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "mine"
    write_params(folder, TINY)
    for words in (("init", "--quiet"), ("add", "--all"), (*WHO, "commit", "--quiet", "--message", "pipeline")):
        subprocess.run(["git", *words], cwd=folder, check=True)
    done = run(environment, folder, "python", "-m", "dvc", "repro")
    assert done.returncode == 0, done.stderr
    assert "Data and pipelines are up to date" in run(environment, folder, "python", "-m", "dvc", "status").stdout
    file = folder / "vqlcmd" / "methods" / "lcmd.py"
    file.write_text(f"{file.read_text(encoding='utf-8')}# An edit.\n", encoding="utf-8")
    stale = run(environment, folder, "python", "-m", "dvc", "status").stdout
    assert "train" in stale
    assert "tokenize" not in stale
    done = run(environment, folder, "vqlcmd", "report", "--html", "run.html")
    assert "fid_proxy" in done.stdout, done.stderr
    assert (folder / "run.html").is_file()
    done = run(environment, folder, "vqlcmd", "export", "given")
    assert done.returncode == 0, done.stderr


def test_the_environment_has_the_wheels_code_and_no_stages(environment: Path, tmp_path: Path) -> None:
    where = run(environment, tmp_path, "python", "-c", "import vqlcmd; print(vqlcmd.__file__)").stdout
    assert where.startswith(str(environment))
    assert "No module named 'stages'" in run(environment, tmp_path, "python", "-c", "import stages").stderr
    listed = run(
        environment, tmp_path, "python", "-c", "from vqlcmd.evaluation.metrics import select; select(['fid', 'kid'])"
    )
    assert listed.returncode == 0, listed.stderr


def test_what_needs_only_a_model_works_anywhere(environment: Path, model: Path, tmp_path: Path) -> None:
    assert "gallery" in run(environment, tmp_path, "vqlcmd", "--help").stdout
    Image.new("RGB", (20, 30), "red").save(tmp_path / "a.png")
    mask = Image.new("L", (20, 30))
    mask.paste(255, (3, 8, 9, 14))
    mask.save(tmp_path / "mask.png")
    given = ("--model", str(model))
    for command in (
        ("sample", *given, "--class", "3", "--count", "2", "--steps", "2", "--out", "drawn"),
        ("gallery", *given, "gallery.png", "--steps", "2", "--rows", "1"),
        ("inpaint", *given, "a.png", "mask.png", "--steps", "2", "--count", "2", "--out", "painted.png"),
        ("decode", *given, "--out", "decoded.npz"),
        ("decode", *given, "--samples", str(model / "samples"), "--out", "decoded"),
    ):
        done = run(environment, tmp_path, "vqlcmd", *command)
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == [
        "000000-class 3.png",
        "000001-class 3.png",
    ]
    assert len(list((tmp_path / "decoded").iterdir())) == 3
    for name in ("gallery.png", "painted.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 100


def test_an_exported_model_samples_the_same_bytes_in_the_wheels_environment(
    environment: Path, model: Path, tmp_path: Path
) -> None:
    export(tmp_path / "exported", model, with_metrics=False)
    arguments = ("--model", "exported", "--count", "3", "--steps", "2", "--out", "there.npz")
    done = run(environment, tmp_path, "vqlcmd", "sample", *arguments)
    assert done.returncode == 0, done.stderr
    there = np.load(tmp_path / "there.npz")["arr_0"]
    here = vqlcmd.load(str(model)).sample([0, 1, 2], steps=2).permute(0, 2, 3, 1).numpy()
    assert there.dtype == np.uint8
    assert there.tobytes() == here.tobytes()


@pytest.mark.parametrize(
    "command", ["train", "sample", "tokenize", "report", "plan", "scan a .", "table list", "table run methods"]
)
def test_what_needs_a_checkout_says_so_in_one_line(environment: Path, tmp_path: Path, command: str) -> None:
    done = run(environment, tmp_path, "vqlcmd", *command.split())
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert "checkout" in done.stderr
    assert not list(tmp_path.iterdir())
