"""A visitor of the page: what they click, type, paint and see, through Playwright."""

import base64
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass
class Visit:
    """A browser's page, the hosts it has asked, and errors that it met."""

    page: Any
    url: str
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def tab(self, name: str) -> Any:
        self.page.get_by_role("tab", name=name).click()
        return self.page.get_by_role("tabpanel").filter(visible=True)

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True).filter(visible=True)

    def status(self, text: str) -> str:
        """What is said of the work, once it has these words in it."""
        found = self.page.locator(".prose.status").filter(visible=True).filter(has_text=re.compile(text))
        found.wait_for()
        return found.inner_text()

    def choose(self, label: str, value: str) -> None:
        field_ = self.page.get_by_label(label, exact=True).filter(visible=True).first
        field_.click()
        self.page.get_by_role("option", name=value, exact=True).click()

    def number(self, label: str, value: int) -> None:
        field_ = (
            self.page.get_by_label(re.compile(label))
            .filter(visible=True)
            .and_(self.page.locator("input[type=number]"))
            .first
        )
        field_.fill(str(value))
        field_.press("Enter")

    def images(self) -> list[np.ndarray]:
        urls = self.page.locator(".gallery img").filter(visible=True).evaluate_all("each => each.map(i => i.src)")
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))) for url in urls]

    def upload(self, path: Path) -> None:
        with self.page.expect_file_chooser() as waiting:
            self.button("Upload a picture").click()
        waiting.value.set_files(path)

    def paint_half(self) -> None:
        """Brush over the right half of the picture in the editor, with the mouse."""
        canvas = self.page.locator(".editor canvas").filter(visible=True).first
        box = canvas.bounding_box()
        self.page.wait_for_timeout(1500)
        shown = min(box["width"], box["height"])
        middle_x, middle_y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse, half = self.page.mouse, 0.38 * shown
        mouse.move(middle_x + 0.12 * shown, middle_y - half)
        mouse.down()
        for line in range(13):
            y = middle_y - half + line * half / 6
            for x in (0.12, 0.36)[:: 1 if line % 2 else -1]:
                mouse.move(middle_x + x * shown, y, steps=4)
        mouse.up()
        self.page.wait_for_timeout(500)
