"""How long one waits before anything happens: the command line, the import, a pipeline with nothing to do, the page."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import sizes
from benchmarks.measure import ROOT, Report, flags, interleaved, milliseconds
from vqlcmd import methods
from vqlcmd.pretrained import described
from vqlcmd.runtime.files import sha256
from vqlcmd.tokenizer import vqgan

TINY: dict[str, Any] = {
    "train_steps": 5,
    "sample_steps": 2,
    "vqgan": {"fit": {"steps": 5, "limit": 100}},
    "network": {"layers": 1, "heads": 2, "width": 32},
    "sample": {"count": 50},
    "bound": {"levels": 2},
    "reference": {"proxy": {"steps": 5}},
}
BESIDE = Path(sys.executable).parent
"""Where the commands of this environment are."""


def call(*command: str, folder: Path = ROOT) -> str:
    """Run a command; what it printed."""
    environment = {**os.environ, "PATH": f"{BESIDE}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def finished(folder: Path) -> None:
    """A copy of the pipeline with tiny parameters, in which `dvc repro` has run."""
    for name in ("vqlcmd", "stages", "data/manifests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", folder / ".dvc" / "config")
    parameters = sizes.digits(**TINY).params.model_dump(mode="json")
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters), encoding="utf-8")
    call("dvc", "config", "core.no_scm", "true", folder=folder)
    call("dvc", "repro", folder=folder)


def untrained(folder: Path) -> None:
    """A model of the demo's size: weights do not matter for time."""
    size = sizes.digits()
    shape = described.architecture(size.params.vqgan, size.params.images.size)
    vqgan.save(vqgan.VQGAN(shape), folder / "vqgan.safetensors", {})
    header = {
        "tokens": size.tokens,
        "grid": [4, 4],
        "classes": [str(number) for number in range(size.classes)],
        "vqgan_digest": sha256(folder / "vqgan.safetensors"),
    }
    table_KD = torch.zeros(size.codes, shape.embed_dim)
    methods.save_method(folder / "model" / "model.safetensors", size.build(), size.params, header, table_KD)


def served(folder: Path) -> None:
    """`vqlcmd page`, until a page has come from it."""
    command = [sys.executable, "-m", "vqlcmd.cli.main", "page", "--model", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            with urllib.request.urlopen(server.stdout.readline().split()[0]) as page:
                assert b"<html" in page.read()
        finally:
            server.send_signal(signal.SIGINT)


def until_the_page(report: Report) -> None:
    """The page beside the imports that it cannot do without, of which there is a line where Gradio is not installed."""
    if importlib.util.find_spec("gradio") is None:
        report.say("The page was not measured: it needs Gradio, `pip install -e '.[page]'`.")
        return
    imports = [f"import {name}" for name in ("gradio", "torch")]
    works = {each: partial(call, sys.executable, "-c", each) for each in imports}
    with tempfile.TemporaryDirectory() as name:
        untrained(Path(name))
        found = interleaved({**works, "vqlcmd page": partial(served, Path(name))}, 3, warm=1)
    for each in (*imports, "vqlcmd page"):
        report.row(
            command=f"`{each}`",
            time=milliseconds(found.median(each)) + (" (target < 3 s)" if each == "vqlcmd page" else ""),
            of_both_imports=report.ratio(each, found.ratio(each, *imports)),
        )


def main(tiny: bool = False) -> dict[str, float]:
    """Seconds, and how many bare interpreters start in that time."""
    report = Report("start", "seconds before anything happens")
    commands: dict[str, tuple[str, ...]] = {
        "python -c pass": (sys.executable, "-c", "pass"),
        "import vqlcmd": (sys.executable, "-c", "import vqlcmd"),
        "vqlcmd --help": (str(BESIDE / "vqlcmd"), "--help"),
    }
    works = {name: partial(call, *command) for name, command in commands.items()}
    with tempfile.TemporaryDirectory() as name:
        if not tiny:
            finished(Path(name))
            works["dvc repro, nothing to do"] = partial(call, "dvc", "repro", folder=Path(name))
            assert "up to date" in works["dvc repro, nothing to do"]()
        found = interleaved(works, 1 if tiny else 7, warm=0 if tiny else 1)
    for name in works:
        report.row(
            command=f"`{name}`",
            time=milliseconds(found.median(name)) + (" (target < 0.5 s)" if name == "vqlcmd --help" else ""),
            interpreters=report.ratio(name, found.ratio(name, "python -c pass")),
        )
    if not tiny:
        until_the_page(report)
    return report.ratios


if __name__ == "__main__":
    main(**flags("tiny"))
