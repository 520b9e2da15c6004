"""The page as a visitor has it: `vqlcmd page` in a process of its own, and a real browser that clicks and paints.

It needs the extra `page`, Playwright's Python package, and a Chromium: Debian's, or the one that $CHROMIUM names.
"""

import importlib
import importlib.util
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.page.models import SIDE, saved
from tests.page.visitor import Visit
from tests.pipeline_imports import ROOT
from vqlcmd.page.chart import CELL

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["chromium"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (docs/page.md)"),
]
PATIENCE = 90_000
"""Milliseconds, for a busy machine."""
SLOWEST = 60
"""Seconds of a draw, by the page's own clock, on a machine that does much else; how long it takes is in docs/log.md."""
GUARD = """
import ipaddress, socket
def watched(connect):
    def inner(self, address):
        host = address[0] if isinstance(address, tuple) else "127.0.0.1"
        try:
            inside = ipaddress.ip_address(host).is_loopback
        except ValueError:
            inside = host == "localhost"
        if not inside:
            with open(LOG, "a") as file:
                print(host, file=file)
        return connect(self, address)
    return inner
socket.socket.connect = watched(socket.socket.connect)
socket.socket.connect_ex = watched(socket.socket.connect_ex)
"""


def seconds(said: str) -> float:
    """What the page says a job took; printed, for whoever measures."""
    found = re.search(r"(\d+\.\d\d) s", said)
    assert found, said
    print(said)
    return float(found[1])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a page of two models, and a file with the hosts that its process has asked."""
    folder = tmp_path_factory.mktemp("page")
    # As large as the demo's, so that there is something to stop.
    large: dict[str, Any] = {"network": {"layers": 4, "heads": 4, "width": 128}}
    saved(folder / "one", method="lcmd", **large)
    saved(folder / "two", method="maskgit")
    (folder / "metrics").mkdir()
    shutil.copy(ROOT / "metrics" / "train.tsv", folder / "metrics")
    log = folder / "hosts.txt"
    (folder / "sitecustomize.py").write_text(GUARD.replace("LOG", repr(str(log))), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "vqlcmd.cli.main", "page", "--model", "one", "--model", "two", "--port", str(port)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()
            assert line.startswith(f"http://127.0.0.1:{port}/"), line
            yield line.split()[0], log
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=60) == 130
    assert not list(folder.glob("vqlcmd-page-*")), "uploads and downloads are removed"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with importlib.import_module("playwright.sync_api").sync_playwright() as playwright:
        # As root, and without the other processes of a container, its sandbox cannot start.
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(served: tuple[str, Path], browser: Any) -> Iterator[Visit]:
    """A fresh page, which must end without an error and without a request to another host."""
    url, log = served
    page = browser.new_page(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    page.set_default_timeout(PATIENCE)
    found = Visit(page, url)

    def asked(request: Any) -> None:
        if request.url.startswith(("http", "ws")) and not request.url.split("://")[1].startswith(url.split("/")[2]):
            found.outside.append(request.url)

    page.on("request", asked)
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.goto(url)
    found.button("Draw").wait_for()
    yield found
    page.close()
    assert not found.errors
    assert not found.outside, "the browser asks no other host"
    assert not log.exists(), f"the server asks no other host: {log.read_text(encoding='utf-8')}"


def test_samples_come_with_their_costs_a_download_and_the_way_to_them(visit: Visit) -> None:
    visit.button("Draw").click()
    said = visit.status("16 images")
    assert re.search(r"16 images · \d+\.\d\d s · 11 network calls an image · seed 0", said)
    assert seconds(said) < SLOWEST
    first = visit.images()
    assert len(first) == 16
    assert all(image.shape == (SIDE, SIDE, 3) for image in first)
    visit.page.locator(".film img").wait_for()
    film = visit.page.request.get(visit.page.locator(".film img").get_attribute("src")).body()
    assert getattr(Image.open(io.BytesIO(film)), "n_frames", 1) == 12
    with visit.page.expect_download() as waiting:
        visit.page.get_by_text("Download as PNG files").filter(visible=True).click()
    with zipfile.ZipFile(waiting.value.path()) as file:
        assert file.namelist()[:3] == ["000-ant.png", "001-bee.png", "002-cat.png"]
        pixels = np.asarray(Image.open(io.BytesIO(file.read("003-ant.png"))))
    assert np.array_equal(pixels, first[3])


def test_class_count_and_the_methods_own_knobs_are_there_to_set(visit: Visit) -> None:
    panel = visit.page.get_by_role("tabpanel").filter(visible=True)
    assert panel.get_by_text("ddim").is_visible()
    assert not panel.get_by_text("Temperature").is_visible()
    panel.get_by_label("two", exact=True).check()
    panel.get_by_text("Temperature").filter(visible=True).wait_for()
    visit.number("Images", 3)
    visit.choose("Class", "bee")
    visit.button("Draw").click()
    visit.status("3 images")
    captions = visit.page.locator(".gallery figcaption").filter(visible=True).all_inner_texts()
    assert captions == ["bee"] * 3


def test_stop_ends_the_sampling_and_the_next_job_runs(visit: Visit) -> None:
    visit.number("Images", 64)
    visit.number("Steps", 200)
    visit.button("Draw").click()
    # It is disabled while nothing runs; a click waits for that.
    visit.button("Stop").click()
    said = visit.status("stopped (after|before)")
    done = re.search(r"after (\d+) predictions", said)
    assert done is None or int(done[1]) < 201, said
    visit.number("Images", 2)
    visit.number("Steps", 3)
    visit.button("Draw").click()
    assert "4 network calls" in visit.status("2 images")


def test_a_second_visitor_waits_until_the_first_is_done_or_stops(visit: Visit, browser: Any) -> None:
    second = Visit(browser.new_page(), visit.url)
    second.page.set_default_timeout(PATIENCE)
    second.page.goto(visit.url)
    second.number("Images", 2)
    second.number("Steps", 1)
    visit.number("Images", 64)
    visit.number("Steps", 200)
    visit.button("Draw").click()
    stop = visit.button("Stop")
    visit.page.wait_for_function("button => !button.disabled", arg=stop.element_handle())
    second.button("Draw").click()
    second.page.wait_for_timeout(1000)
    waits = "Press Draw." in second.status(".")
    assert waits or not stop.is_enabled(), "two jobs at once"
    if stop.is_enabled():
        stop.click()
    assert "2 network calls" in second.status("2 images")
    second.page.close()


def test_an_uploaded_picture_is_painted_over_with_the_mouse_and_filled_in(visit: Visit, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "mine.png")
    visit.tab("Paint")
    visit.upload(tmp_path / "mine.png")
    visit.status("Now paint over a part of it")
    visit.button("Fill in").click()
    visit.status("nothing is brushed out yet")
    visit.paint_half()
    visit.number("Results", 4)
    visit.button("Fill in").click()
    assert seconds(visit.status("4 images")) < SLOWEST
    kept, *results = visit.images()
    assert len(results) == 4
    grey = (kept == 127).all(axis=2)
    assert 0.15 < grey.mean() < 0.6, "about what was painted over"
    assert not grey[:, : SIDE // 2 - 2].any()
    for result in results:
        assert np.array_equal(result[~grey], pixels[~grey])
        assert (result[grey] != pixels[grey]).any()


def test_a_sampled_picture_can_be_painted_over_too(visit: Visit) -> None:
    visit.tab("Paint")
    visit.button("Fill in").click()
    visit.status("there is no picture yet")
    visit.button("Sample a picture").click()
    visit.status("Now paint over a part of it")
    visit.paint_half()
    visit.button("Fill in").click()
    visit.status("8 images")
    assert len(visit.images()) == 9


def test_an_upload_that_is_no_picture_is_told_and_shown_as_text(visit: Visit, tmp_path: Path) -> None:
    path = tmp_path / "x'><img src=y>.png"
    path.write_bytes(b"no picture")
    visit.tab("Paint")
    visit.upload(path)
    assert "cannot be read as a picture" in visit.status("cannot be read as a picture")
    assert visit.page.locator("img[src=y]").count() == 0


def test_models_and_settings_are_compared_row_by_row(visit: Visit) -> None:
    visit.tab("Compare")
    visit.choose("What varies", "steps")
    values = visit.page.get_by_label("Values, by commas")
    # Some are suggested for what was chosen.
    visit.page.wait_for_function("field => field.value === '5, 10, 25, 50'", arg=values.element_handle())
    values.fill("2, 4")
    visit.button("Compare").click()
    visit.status("4 of 4 rows")
    labels = visit.page.locator(".comparison .what b").all_inner_texts()
    assert labels == ["one, steps 2", "one, steps 4", "two, steps 2", "two, steps 4"]
    assert visit.page.locator(".comparison img").count() == 40


def test_inside_are_codes_embeddings_and_curves(visit: Visit) -> None:
    visit.tab("Look inside")
    visit.page.get_by_text("0: 0.00").filter(visible=True).wait_for()
    visit.page.get_by_label("Code", exact=True).filter(visible=True).fill("5")
    visit.page.get_by_text("5: 0.00").filter(visible=True).wait_for()
    visit.page.wait_for_function("count => document.querySelectorAll('.inside img').length >= count", arg=3)
    sizes = visit.page.locator(".inside img").filter(visible=True).evaluate_all("each => each.map(i => i.naturalWidth)")
    assert sizes[0] == 6 * CELL, "all 32 codes in six columns"
    assert min(sizes[1:]) > 500, "embeddings and curves"
    visit.page.locator(".inside img").first.click(position={"x": 2, "y": 2})
    visit.page.get_by_text("0: 0.00").filter(visible=True).wait_for()


def test_a_port_that_is_taken_is_one_line(served: tuple[str, Path], tmp_path: Path) -> None:
    saved(tmp_path / "data", method="lcmd")
    port = served[0].rstrip("/").rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "vqlcmd.cli.main", "page", "--port", port],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"vqlcmd: no page can be served at 127.0.0.1, port {port}: ")
