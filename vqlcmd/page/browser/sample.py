"""The tab Sample: images of a class, their cost, and what the model predicted at each step."""

from collections.abc import Iterator
from typing import Any

from vqlcmd.page.browser.controls import Controls
from vqlcmd.page.browser.events import job
from vqlcmd.page.browser.toolkit import Request, gr
from vqlcmd.page.description import Description
from vqlcmd.page.jobs import Jobs
from vqlcmd.page.process import Models

MOST, USUAL = 64, 16
COLUMNS = 8


def sample_tab(name: str, model: Description, models: Models, jobs: Jobs, folder: str) -> None:
    """Builds the tab: controls at the left, images at the right. Files to download are written to `folder`."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=1, min_width=280):
            controls = Controls(model, what="Images", usual=USUAL, most=MOST, nothing="all, in turn")
        with gr.Column(scale=2, min_width=360):
            status = gr.Markdown("Press **Draw**.", elem_classes="status")
            shown = gr.HTML()
            file = gr.DownloadButton("Download as PNG files", visible=False, size="sm")
            with gr.Column(visible=False) as believed:
                gr.Markdown("**What the model believed**: the likeliest picture at each step, from noise to the end.")
                film = gr.Image(
                    label="From noise to the samples",
                    show_label=False,
                    format="webp",
                    interactive=False,
                    buttons=["download", "fullscreen"],
                    elem_classes="film",
                )

    def draw(request: Request, progress: Any = gr.Progress(), *values: Any) -> Iterator[Any]:  # noqa: B008
        count, class_, how = controls.read(values)
        for found in models.ask(
            "draw",
            name,
            stopped=jobs.stopped(request.session_hash),
            report=lambda done, most: progress((done, most), unit="steps"),
            count=count,
            class_=class_,
            how=how,
            columns=COLUMNS,
            folder=folder,
        ):
            if "film" in found:
                yield gr.skip(), gr.skip(), gr.skip(), found["film"], gr.skip()
            else:
                download = gr.update(value=found["archive"], visible=True)
                yield found["gallery"], download, gr.update(visible=found["film_follows"]), None, found["cost"]

    with controls.buttons:
        job(jobs, "Draw", draw, controls.components, [shown, file, believed, film], status)
