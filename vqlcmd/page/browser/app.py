"""The page: its tabs, with a version for each model, and the server behind it."""

import gc
import html
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vqlcmd.page.browser.compare import compare_tab
from vqlcmd.page.browser.events import NOW
from vqlcmd.page.browser.inside import inside_tab
from vqlcmd.page.browser.paint import paint_tab
from vqlcmd.page.browser.sample import sample_tab
from vqlcmd.page.browser.style import CSS, theme
from vqlcmd.page.browser.toolkit import Request, gr
from vqlcmd.page.description import Description
from vqlcmd.page.jobs import Jobs
from vqlcmd.page.process import Models
from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import ConfigError

TITLE = "VQ-LCMD"


def serve(models: Models, host: str, port: int | None, show: bool) -> None:
    """Serves the page of models, once they are loaded, until Ctrl-C; `show` opens a browser on it.

    Raises ConfigError if the port is taken, and whatever loading raises. Garbage collection, if it was off, is on again
    once the page is up.
    """
    with tempfile.TemporaryDirectory(prefix="vqlcmd-page-") as made:
        # Gradio keeps uploads there too, so that nothing of a visitor's stays.
        os.environ["GRADIO_TEMP_DIR"] = made
        page = build(models, models.loaded(), made)
        try:
            _, url, _ = page.launch(
                server_name=host,
                server_port=port,
                inbrowser=show,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                max_file_size=paths.picture_memory(),
                theme=theme(),
                css=CSS,
            )
        except OSError as error:
            raise ConfigError(f"no page can be served at {host}, port {port or 'any'}: {error}") from None
        gc.freeze()
        gc.enable()
        print(f"{url}  (Ctrl-C ends it)", flush=True)
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def build(models: Models, described: Mapping[str, Description], made: str) -> Any:
    """The page of these models as gr.Blocks. Files to download are written to the folder `made`."""
    jobs = Jobs()

    def leave(request: Request) -> None:
        jobs.leave(request.session_hash)

    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.HTML(head(described))
        with gr.Tab("Sample"):
            each(described, lambda name: sample_tab(name, described[name], models, jobs, made))
        with gr.Tab("Paint"):
            each(described, lambda name: paint_tab(name, described[name], models, jobs))
        with gr.Tab("Compare"):
            compare_tab(described, models, jobs)
        with gr.Tab("Look inside") as inside:
            each(described, lambda name: inside_tab(name, described[name], models, made, inside))
        page.unload(leave)
    return page


def each(names: Iterable[str], tab: Callable[[str], None]) -> None:
    """Builds `tab` for every model by its name; only that of the chosen model is visible."""
    names = list(names)
    choice = gr.Radio(names, value=names[0], label="Model", visible=len(names) > 1)
    columns = []
    for name in names:
        with gr.Column(visible=name == names[0]) as column:
            tab(name)
        columns.append(column)
    choice.change(lambda chosen: [gr.update(visible=name == chosen) for name in names], choice, columns, **NOW)


def head(described: Mapping[str, Description]) -> str:
    """The title, and a line for each model, as HTML."""
    lines = [
        f"<p>{f'<b>{html.escape(name)}</b>: ' if len(described) > 1 else ''}{html.escape(model.summary)}</p>"
        for name, model in described.items()
    ]
    return f'<div class="head"><h1>{TITLE}</h1>{"".join(lines)}</div>'
