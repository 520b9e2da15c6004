"""Gradio, which the extra `page` installs: imported only here, without its telemetry, and faster."""

import importlib
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vqlcmd.runtime.errors import ConfigError

# Gradio reads this when it is imported. Its analytics would send requests to other hosts.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"


@contextmanager
def _no_stubs() -> Iterator[None]:
    """Keeps Gradio from comparing its components' type stubs with their sources, which takes half of its import."""
    getfile = inspect.getfile

    def refuse(thing: Any) -> str:
        if inspect.isclass(thing) and thing.__module__.startswith("gradio."):
            raise OSError("no source is looked for")  # Gradio then believes that the class has no file
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
"""The module `gradio`, typed as Any because the package is optional."""
if TYPE_CHECKING:
    Request = SelectData = Any
else:
    Request, SelectData = gr.Request, gr.SelectData
"""Gradio passes these to functions whose signatures ask for them: whose request it is, and where the click was."""
