"""Buttons that start and stop work, one job at a time, and the messages that tell a visitor what was wrong."""

import functools
import html
from collections.abc import Callable, Iterator
from typing import Any

from vqlcmd.page.browser.toolkit import Request, gr
from vqlcmd.page.jobs import Jobs, Stopped
from vqlcmd.runtime.errors import UserError

QUEUE = {"concurrency_limit": 1, "concurrency_id": "model", "show_progress": "minimal"}
"""For every event that computes: they wait for each other in one queue."""
NOW = {"queue": False, "show_progress": "hidden"}
"""For events that run at once, outside of the queue."""


def job(
    jobs: Jobs, label: str, work: Callable[..., Iterator[Any]], inputs: list[Any], outputs: list[Any], status: Any
) -> None:
    """Adds a button that starts `work` in the queue, and one beside it that stops it.

    `work` yields values for `outputs`, and last the text of `status`, a gr.Markdown.
    """
    with gr.Row():
        go = gr.Button(label, variant="primary", scale=2)
        stop = gr.Button("Stop", variant="stop", interactive=False, scale=1, min_width=80)

    def begin(request: Request) -> tuple[Any, Any]:
        jobs.begin(request.session_hash)
        return gr.update(interactive=False), gr.update(interactive=True)

    def end(request: Request) -> None:
        jobs.stop(request.session_hash)

    def again() -> tuple[Any, Any]:
        return gr.update(interactive=True), gr.update(interactive=False)

    started = go.click(begin, None, [go, stop], **NOW)
    done = started.then(told(work, len(outputs)), inputs, [*outputs, status], **QUEUE)
    done.then(again, None, [go, stop], **NOW)
    done.failure(again, None, [go, stop], **NOW)
    stop.click(end, None, None, **NOW)


def told(work: Callable[..., Iterator[Any]], outputs: int) -> Callable[..., Iterator[Any]]:
    """Wraps `work`, which yields `outputs` values and a status: user errors become the status and change no output.

    The event itself must not fail: Gradio marks everything that a failed event would have changed.
    """

    # Gradio reads from the signature what to pass beside the inputs.
    @functools.wraps(work)
    def telling(*values: Any) -> Iterator[Any]:
        try:
            yield from work(*values)
        except UserError as error:
            # The message is shown as HTML, and may contain the name of a file.
            text = html.escape(str(error))
            if not isinstance(error, Stopped):
                gr.Warning(text)
            yield *[gr.skip()] * outputs, f"<span class='wrong'>{text}</span>"

    return telling
