"""The tab Paint: a picture of the visitor's or of the model's, and what could be where they paint over it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqlcmd.generator import Generator
from vqlcmd.page import drawing, painting, pictures
from vqlcmd.page.browser.controls import Controls
from vqlcmd.page.browser.events import QUEUE, job, told
from vqlcmd.page.browser.toolkit import Request, gr
from vqlcmd.page.jobs import Jobs

MOST, USUAL = 32, 8
COLUMNS = 3
CANVAS = 400
"""Pixels that a picture is enlarged to, at least."""
BRUSH = ("#f59e0b", 0.8)
"""Colour and opacity."""
FIRST = "Upload or sample a picture, paint over a part of it, and press **Fill in**."


def paint_tab(model: Generator, jobs: Jobs) -> None:
    """The editor and its controls at the left, results at the right."""
    if not model.method.supports_inpainting:
        gr.Markdown(f"{model.about['params']['method']} cannot hold tokens fixed, so it cannot fill in.")
        return
    image = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=360):
            with gr.Row():
                upload = gr.UploadButton("Upload a picture", file_types=["image"], size="sm")
                fresh = gr.Button("Sample a picture", size="sm")
            editor = gr.ImageEditor(
                label="Paint over what is to be drawn anew",
                interactive=True,
                sources=(),
                transforms=(),
                layers=False,
                brush=gr.Brush(default_size=CANVAS // 8, colors=[BRUSH], default_color=BRUSH, color_mode="fixed"),
                eraser=gr.Eraser(default_size=CANVAS // 8),
                canvas_size=(CANVAS, CANVAS),
                height=CANVAS + 100,
                format="png",
                buttons=[],
                elem_classes="editor",
            )
            controls = Controls(model, what="Results", usual=USUAL, most=MOST, nothing="any", opened=False)
            with controls.below:
                whole = gr.Checkbox(False, label="Take whole tokens", info="Not the painted pixels alone.")
        with gr.Column(scale=1, min_width=360):
            status = gr.Markdown(FIRST, elem_classes="status")
            shown = gr.HTML()

    def opened(image_: Tensor) -> tuple[Any, Any, str]:
        large = np.asarray(pictures.enlarged(image_, CANVAS))
        return image_, {"background": large, "layers": [], "composite": large}, "Now paint over a part of it."

    def taken(path: str) -> Iterator[Any]:
        yield opened(painting.prepared(model, Path(path)))

    def sampled(request: Request, *values: Any) -> Iterator[Any]:
        jobs.begin(request.session_hash)
        _, class_, how = controls.read(values)
        onlooker = jobs.onlooker(request.session_hash, model.method.tokens)
        yield opened(drawing.sample(model, drawing.labels(model, class_, 1), onlooker, **how).images[0])

    def fill(request: Request, image_: Tensor | None, edited: Any, whole: bool, *values: Any) -> Iterator[Any]:
        count, class_, how = controls.read(values)
        onlooker, layers = jobs.onlooker(request.session_hash, model.method.tokens), (edited or {}).get("layers", [])
        drawn, kept = painting.fillings(model, image_, layers, class_, count, onlooker, whole_tokens=whole, **how)
        images = torch.cat([kept[None], drawn.images])
        yield pictures.gallery(images, ["what is kept", *[""] * count], COLUMNS), drawn.cost()

    upload.upload(told(taken, 2), upload, [image, editor, status], **QUEUE)
    fresh.click(told(sampled, 2), controls.components, [image, editor, status], **QUEUE)
    with controls.buttons:
        job(jobs, "Fill in", fill, [image, editor, whole, *controls.components], [shown], status)
