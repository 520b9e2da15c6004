"""A page in the browser for trained models: `vqlcmd page`, which needs the extra `page`."""

import gc
from typing import Annotated

import typer


def page(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="A folder with model/ and vqgan.safetensors; may be given more than once. [data]"),
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: the first free one from 7860]")] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 lets other machines in, whoever they are.")
    ] = "127.0.0.1",
    show: Annotated[bool, typer.Option("--open", help="Open a browser on it.")] = False,
) -> None:
    """Sample, paint, compare and look inside of models in a browser, on this machine and without the Internet."""
    # Imports make objects by the hundred thousand that stay; looking for garbage among them takes a fifth of the time
    # until the page is there. `serve` enables it again.
    gc.disable()
    from vqlcmd.page.browser.app import serve

    serve(model or ["data"], host, port, show)
