"""The tab Sample: images of a class, what they cost, and what the model believed on the way to them."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vqlcmd.generator import Generator
from vqlcmd.page import drawing, pictures
from vqlcmd.page.browser.controls import Controls
from vqlcmd.page.browser.events import job
from vqlcmd.page.browser.toolkit import Request, gr
from vqlcmd.page.jobs import Jobs

MOST, USUAL = 64, 16
COLUMNS = 8


def sample_tab(model: Generator, jobs: Jobs, folder: Path) -> None:
    """Controls at the left, images at the right; files to download are written to `folder`."""
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
        classes = drawing.labels(model, class_, count)
        most = drawing.predictions(model, count, **how)
        onlooker = jobs.onlooker(
            request.session_hash, model.method.tokens, lambda done: progress((min(done, most), most), unit="steps")
        )
        drawn = drawing.sample(model, classes, onlooker, **how)
        names = [model.class_names[each] for each in classes] if isinstance(classes, list) else [""] * count
        made = pictures.archive(drawn.images, names, folder / f"samples-{secrets.token_hex(8)}.zip")
        line, download = f"{drawn.cost()} · seed {how['seed']}", gr.update(value=str(made), visible=True)
        images = pictures.gallery(drawn.images, names, COLUMNS)
        yield images, download, gr.update(visible=bool(drawn.beliefs)), None, line
        if drawn.beliefs:
            moving = folder / f"trajectory-{secrets.token_hex(8)}.webp"
            pictures.animation(drawing.frames(model, drawn.first(2 * COLUMNS)), COLUMNS, moving)
            yield gr.skip(), gr.skip(), gr.skip(), str(moving), line

    with controls.buttons:
        job(jobs, "Draw", draw, controls.components, [shown, file, believed, film], status)
