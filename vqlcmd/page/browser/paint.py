"""The tab Paint: a picture, uploaded or sampled, and what the model draws where the visitor paints over it."""

from collections.abc import Iterator
from typing import Any

from vqlcmd.page.browser.controls import Controls
from vqlcmd.page.browser.events import QUEUE, job, told
from vqlcmd.page.browser.toolkit import Request, gr
from vqlcmd.page.description import Description
from vqlcmd.page.jobs import Jobs
from vqlcmd.page.process import Models

MOST, USUAL = 32, 8
COLUMNS = 3
CANVAS = 400
"""The least side of the enlarged picture, in pixels."""
BRUSH = ("#f59e0b", 0.8)
"""Colour and opacity of the brush."""
FIRST = "Upload or sample a picture, paint over a part of it, and press **Fill in**."


def paint_tab(name: str, model: Description, models: Models, jobs: Jobs) -> None:
    """Builds the tab: the editor and its controls at the left, results at the right."""
    if not model.supports_inpainting:
        gr.Markdown(f"{model.method} cannot hold tokens fixed, so it cannot fill in.")
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

    def opened(found: Iterator[Any]) -> Iterator[Any]:
        for pixels, large in found:
            yield pixels, {"background": large, "layers": [], "composite": large}, "Now paint over a part of it."

    def taken(path: str) -> Iterator[Any]:
        yield from opened(models.ask("open_picture", name, path=path, side=CANVAS))

    def sampled(request: Request, *values: Any) -> Iterator[Any]:
        jobs.begin(request.session_hash)
        _, class_, how = controls.read(values)
        stopped = jobs.stopped(request.session_hash)
        yield from opened(models.ask("sample_one", name, stopped=stopped, class_=class_, how=how, side=CANVAS))

    def fill(request: Request, pixels: Any, edited: Any, whole: bool, *values: Any) -> Iterator[Any]:
        count, class_, how = controls.read(values)
        yield from models.ask(
            "fill_in",
            name,
            stopped=jobs.stopped(request.session_hash),
            image=pixels,
            layers=(edited or {}).get("layers", []),
            class_=class_,
            count=count,
            whole_tokens=whole,
            how=how,
            columns=COLUMNS,
        )

    upload.upload(told(taken, 2), upload, [image, editor, status], **QUEUE)
    fresh.click(told(sampled, 2), controls.components, [image, editor, status], **QUEUE)
    with controls.buttons:
        job(jobs, "Fill in", fill, [image, editor, whole, *controls.components], [shown], status)
