"""The page: its tabs, for each model its own, and the server behind it."""

import gc
import html
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import vqlcmd
from vqlcmd.generator import Generator
from vqlcmd.page.browser.compare import compare_tab
from vqlcmd.page.browser.events import NOW
from vqlcmd.page.browser.inside import inside_tab
from vqlcmd.page.browser.paint import paint_tab
from vqlcmd.page.browser.sample import sample_tab
from vqlcmd.page.browser.style import CSS, theme
from vqlcmd.page.browser.toolkit import Request, gr
from vqlcmd.page.jobs import Jobs
from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import ConfigError

TITLE = "VQ-LCMD"
CURVES = Path("metrics") / "train.tsv"
"""Beside a model's folder, as the pipeline has it."""


def serve(folders: Sequence[str], host: str, port: int | None, show: bool) -> None:
    """Load the models in `folders` and serve their page until Ctrl-C; `show` opens a browser on it.

    ConfigError where the port is taken. Garbage collection, if it was off, is on once the page is there.
    """
    models = {name: vqlcmd.load(folder) for name, folder in named(folders).items()}
    with tempfile.TemporaryDirectory(prefix="vqlcmd-page-") as made:
        # Where Gradio keeps uploads too, so that nothing of a visitor stays.
        os.environ["GRADIO_TEMP_DIR"] = made
        page = build(models, named(folders), Path(made))
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


def named(folders: Sequence[str]) -> dict[str, str]:
    """Names for folders: the last part of each, or all of it where two end alike."""
    ends = [folder.rstrip("/").rpartition("/")[2] for folder in folders]
    return {end if ends.count(end) == 1 else folder: folder for end, folder in zip(ends, folders, strict=True)}


def build(models: Mapping[str, Generator], folders: Mapping[str, str], made: Path) -> Any:
    """The page of these models as gr.Blocks, by names as in `folders`. Files to download go to `made`."""
    jobs = Jobs()

    def leave(request: Request) -> None:
        jobs.leave(request.session_hash)

    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.HTML(head(models))
        with gr.Tab("Sample"):
            each(models, lambda name: sample_tab(models[name], jobs, made))
        with gr.Tab("Paint"):
            each(models, lambda name: paint_tab(models[name], jobs))
        with gr.Tab("Compare"):
            compare_tab(models, jobs)
        with gr.Tab("Look inside") as inside:
            each(models, lambda name: inside_tab(models[name], Path(folders[name]).parent / CURVES, made, inside))
        page.unload(leave)
    return page


def each(models: Mapping[str, Generator], tab: Callable[[str], None]) -> None:
    """The tab for every model by its name, of which the chosen one's is seen."""
    first, *others = models
    choice = gr.Radio(list(models), value=first, label="Model", visible=bool(others))
    columns = []
    for name in models:
        with gr.Column(visible=name == first) as column:
            tab(name)
        columns.append(column)
    choice.change(lambda chosen: [gr.update(visible=name == chosen) for name in models], choice, columns, **NOW)


def head(models: Mapping[str, Generator]) -> str:
    """The title, and a line for each model."""
    lines = [
        f"<p>{f'<b>{html.escape(name)}</b>: ' if len(models) > 1 else ''}{html.escape(summary(model))}</p>"
        for name, model in models.items()
    ]
    return f'<div class="head"><h1>{TITLE}</h1>{"".join(lines)}</div>'


def summary(model: Generator) -> str:
    """A model in a line: method, size, classes, tokens."""
    millions = sum(parameter.numel() for parameter in model.method.parameters()) / 1e6
    rows, columns = model.grid
    parts = [f"method {model.about['params']['method']}", f"{millions:.2f}M parameters"]
    parts += [
        f"{len(model.class_names) or 'no'} classes",
        f"{rows} x {columns} tokens of {model.tokenizer.codes:,} codes",
    ]
    return " · ".join(parts)
