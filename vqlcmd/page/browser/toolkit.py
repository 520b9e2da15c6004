"""Gradio, which the extra `page` brings: imported in this one place, without its telemetry, and faster."""

import importlib
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vqlcmd.runtime.errors import ConfigError

# Read when Gradio is imported. With it, there would be requests to other hosts.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


@contextmanager
def _no_stubs() -> Iterator[None]:
    """Leave out that Gradio compares the type stub of each of its components with its source: half of its import."""
    getfile = inspect.getfile

    def refuse(thing: Any) -> str:
        if inspect.isclass(thing) and thing.__module__.startswith("gradio."):
            raise OSError("no source is looked for")  # which Gradio takes for a class without a file
        return getfile(thing)

    inspect.getfile = refuse
    try:
        yield
    finally:
        inspect.getfile = getfile


def _imported() -> Any:
    try:
        with _no_stubs():
            return importlib.import_module("gradio")
    except ImportError as error:
        if error.name != "gradio":
            raise
        raise ConfigError("`vqlcmd page` needs Gradio, which is not installed: pip install 'vqlcmd[page]'") from None


gr: Any = _imported()
"""The module. Any: it is an optional package."""
if TYPE_CHECKING:
    Request = SelectData = Any
else:
    Request, SelectData = gr.Request, gr.SelectData
"""What Gradio passes where a function's signature asks for it: whose request it is, where was clicked."""
