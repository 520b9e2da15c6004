"""What a visitor waits for, by the clock on the wall: `python -m benchmarks.studies.page`, in a finished checkout.

`vqlcmd page` in a process of its own, and a browser that is open already: until the page is on the screen, and from the
click until sixteen images are. It needs the extra `page`, Playwright's Python package and a Chromium, as
tests/page/test_browser.py does.
"""

import argparse
import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
from typing import Any

from benchmarks.measure import Report

COMMAND = "from vqlcmd.cli.main import main; main()"
IMAGES = 16


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listened_at(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def visit(browser: Any, model: str) -> dict[str, float]:
    """Seconds from the start of the process until it listens and is seen, and from the click to the images."""
    port, tab = free_port(), browser.new_page(viewport={"width": 1280, "height": 1000})
    start = time.monotonic()
    command = [sys.executable, "-c", COMMAND, "page", "--model", model, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            while not listened_at(port):
                assert server.poll() is None, f"vqlcmd page ended with {server.returncode}"
                time.sleep(0.02)
            listens = time.monotonic() - start
            tab.goto(f"http://127.0.0.1:{port}")
            button = tab.get_by_role("button", name="Draw", exact=True)
            button.wait_for()
            seen, clicked = time.monotonic() - start, time.monotonic()
            button.click()
            tab.locator(".gallery img").nth(IMAGES - 1).wait_for()
            return {"listens": listens, "on_screen": seen, "sixteen_images": time.monotonic() - clicked}
        finally:
            tab.close()
            server.terminate()


def main() -> None:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="data", help="as for `vqlcmd page`")
    parser.add_argument("--repeats", type=int, default=4)
    given = parser.parse_args()
    report = Report("studies.page", "what a visitor waits for")
    with importlib.import_module("playwright.sync_api").sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"))
        for _ in range(given.repeats):
            report.row(**{name: f"{seconds:.2f} s" for name, seconds in visit(browser, given.model).items()})
        browser.close()


if __name__ == "__main__":
    main()
