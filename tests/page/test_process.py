"""The models' process: what comes of it is what the Python interface gives, and no end of either process is missed."""

import io
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

import vqlcmd
from tests.page.models import SIDE, saved
from tests.pipeline_imports import ROOT
from vqlcmd.generator import Generator
from vqlcmd.page.jobs import Stopped
from vqlcmd.page.models.worker import portable
from vqlcmd.page.process import Models, started
from vqlcmd.runtime.errors import ConfigError, DataError, UserError

HOW = {"seed": 3, "steps": 4}
PATIENCE = 60
"""Seconds, for a busy machine."""
WAITS = """
import sys, threading
from vqlcmd.page.process import started
try:
    with started(sys.argv[1:]) as models:
        models.loaded()
        print(models._process.pid, "torch" in sys.modules, flush=True)
        threading.Event().wait()
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Models, Generator, Path]]:
    """A process with a model, and the same model here."""
    folder = tmp_path_factory.mktemp("models") / "data"
    model = saved(folder, method="lcmd", network={"layers": 4, "heads": 4, "width": 128})
    with started([str(folder)]) as models:
        models.loaded()
        yield models, model, folder


def draw(models: Models, folder: Path, *, count: int = 5, steps: int = 4, **asking: Any) -> list[dict[str, Any]]:
    how = {**HOW, "steps": steps}
    given: dict[str, Any] = {"count": count, "class_": None, "how": how, "columns": 8, "folder": str(folder)}
    return list(models.ask("draw", "data", **given, **asking))


def kill(models: Models) -> None:
    assert models._process.pid is not None
    os.kill(models._process.pid, signal.SIGKILL)


def ended(pid: int) -> bool:
    """Whether a process is over, within PATIENCE."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_samples_are_those_of_the_python_interface_byte_for_byte(
    there: tuple[Models, Generator, Path], tmp_path: Path
) -> None:
    models, model, _ = there
    first, film = draw(models, tmp_path)
    with zipfile.ZipFile(first["archive"]) as file:
        pixels = [np.asarray(Image.open(io.BytesIO(file.read(name)))) for name in file.namelist()]
    expected = model.sample([0, 1, 2, 0, 1], seed=3, steps=4).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(np.stack(pixels), expected)
    assert Path(film["film"]).is_file()


def test_the_page_knows_of_a_model_what_its_file_says(there: tuple[Models, Generator, Path]) -> None:
    _, model, folder = there
    with started([str(folder)]) as models:
        (found,) = models.loaded().values()
    assert found.class_names == model.class_names
    usual = {"steps": 10, "sampler": "ancestral", "guidance": 0.0, "score_temperature": 1.0}
    assert {each.name: each.usual for each in found.settings} == usual
    assert (found.method, found.codes, found.tables) == ("lcmd", 32, ("embeddings", "codebook"))
    assert found.summary.endswith("M parameters · 3 classes · 4 x 4 tokens of 32 codes")


def test_stop_ends_the_work_that_runs_and_the_next_is_done(
    there: tuple[Models, Generator, Path], tmp_path: Path
) -> None:
    models, _, _ = there
    seen = []
    with pytest.raises(Stopped, match=r"stopped after \d+ predictions") as caught:
        draw(
            models,
            tmp_path,
            count=64,
            steps=200,
            stopped=lambda: len(seen) > 2,
            report=lambda done, most: seen.append((done, most)),
        )
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1)), "progress comes in its order"
    assert int(str(caught.value).split()[2]) < 201 == seen[0][1]
    assert len(draw(models, tmp_path)) == 2


def test_work_that_nobody_waits_for_ends(there: tuple[Models, Generator, Path]) -> None:
    """A visitor who leaves between two rows of a comparison: the rows that are left would hold up the next visitor."""
    models, _, _ = there
    given: dict[str, Any] = {"chosen": ["data"], "class_": "", "seed": 0}
    values = "1, " + ", ".join(["200"] * 11)
    rows = models.ask("compare", vary="steps", values=values, count=16, **given)
    assert "1 of 12 rows" in next(rows)[1]
    start = time.monotonic()
    rows.close()
    assert len(list(models.ask("compare", vary=None, values="", count=1, **given))) == 1
    waited = time.monotonic() - start
    ((_, line),) = models.ask("compare", vary="steps", values="200", count=16, **given)
    row = time.monotonic() - start - waited
    assert waited < 4 * row, f"{waited:.2f} s, and a row takes {row:.2f} s: eleven were left"
    assert "1 of 1 rows" in line


def test_what_the_work_refuses_is_refused_here_in_the_same_words(
    there: tuple[Models, Generator, Path], tmp_path: Path
) -> None:
    models, model, _ = there
    with pytest.raises(ConfigError) as expected:
        model.sample([0], steps=0)
    with pytest.raises(ConfigError) as caught:
        draw(models, tmp_path, steps=0)
    assert str(caught.value) == str(expected.value)


def test_an_error_of_the_code_names_the_line_where_it_arose(there: tuple[Models, Generator, Path]) -> None:
    models, _, _ = there
    with pytest.raises(KeyError) as caught:
        list(models.ask("near", "data", code=0, table="nowhere", count=1, columns=1))
    assert "works.py" in "".join(caught.value.__notes__)


class OddError(Exception):
    """Pickled, it does not come back."""

    def __init__(self, one: str, other: str):
        super().__init__(f"{one} {other}")


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (MemoryError(), UserError, r"out of memory \(MemoryError\); ask for fewer images"),
        (RuntimeError("CUDA out of memory."), UserError, r"out of memory \(CUDA out of memory\.\); ask for fewer"),
        (ConfigError("steps is 0"), ConfigError, "steps is 0"),
        (OddError("a", "b"), RuntimeError, "OddError: a b"),
        (OSError(28, "No space", "f.zip"), OSError, r"\[Errno 28\] No space: 'f\.zip'"),
    ],
)
def test_every_error_comes_through_a_pipe(error: Exception, kind: type[Exception], says: str) -> None:
    found = pickle.loads(pickle.dumps(portable(error)))
    assert type(found) is kind
    assert re.match(says, str(found))
    notes = "".join(getattr(found, "__notes__", []))
    assert (type(error).__name__ in notes) == (kind in (RuntimeError, OSError)), "where an error of the code arose"


def test_the_models_leave_ctrl_c_to_the_page(there: tuple[Models, Generator, Path], tmp_path: Path) -> None:
    models, _, _ = there
    assert models._process.pid is not None
    os.kill(models._process.pid, signal.SIGINT)
    assert len(draw(models, tmp_path)) == 2


def test_a_picture_to_paint_over_comes_as_pixels(there: tuple[Models, Generator, Path]) -> None:
    models, model, _ = there
    ((pixels, large),) = models.ask("sample_one", "data", class_=1, how=HOW, side=60)
    assert np.array_equal(pixels, model.sample([1], seed=3, steps=4)[0].numpy())
    assert large.shape == (4 * SIDE, 4 * SIDE, 3)


@pytest.mark.parametrize("place", ["nowhere", "hf://x", "damaged"])
def test_what_cannot_be_loaded_is_refused_in_the_words_of_the_python_interface(tmp_path: Path, place: str) -> None:
    if place == "damaged":
        saved(tmp_path / place, method="lcmd")
        file = tmp_path / place / "model" / "model.safetensors"
        file.write_bytes(file.read_bytes()[:1000])
    folder = place if "://" in place else str(tmp_path / place)
    with pytest.raises(UserError) as expected:
        vqlcmd.load(folder)
    with started([folder]) as models, pytest.raises(UserError) as caught:
        models.loaded()
    assert (type(caught.value), str(caught.value)) == (type(expected.value), str(expected.value))
    assert isinstance(caught.value, ConfigError if "://" in place else DataError)


def test_models_that_are_killed_are_told_of_while_they_load_work_and_afterwards(tmp_path: Path) -> None:
    saved(tmp_path / "data", method="lcmd")
    says = r"^the process that holds the models has ended \(signal 9, Killed\), .* start `vqlcmd page` again$"
    with started([str(tmp_path / "data")]) as models:
        kill(models)
        with pytest.raises(UserError, match=says):
            models.loaded()
    with started([str(tmp_path / "data")]) as models:
        models.loaded()
        with pytest.raises(UserError, match=says):
            draw(models, tmp_path, count=64, steps=200, report=lambda done, most: kill(models))
        with pytest.raises(UserError, match=says):
            draw(models, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_however_the_page_ends_the_models_end_and_nothing_is_said(tmp_path: Path, number: signal.Signals) -> None:
    saved(tmp_path / "data", method="lcmd")
    with subprocess.Popen(
        [sys.executable, "-c", WAITS, str(tmp_path / "data")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as page:
        try:
            assert page.stdout is not None
            assert page.stderr is not None
            pid, has_torch = page.stdout.readline().split()
            assert has_torch == "False", "the page does without PyTorch"
            if number is signal.SIGINT:
                # As a terminal sends it: to all of its processes.
                os.killpg(page.pid, number)
            else:
                page.send_signal(number)
            assert page.wait(PATIENCE) == (-number if number is signal.SIGKILL else 130)
            assert ended(int(pid))
            assert page.stderr.read() == ""
        finally:
            page.kill()
