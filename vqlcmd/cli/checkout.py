"""What only a checkout of the project has: the pipeline's stages, its parameters, its tables."""

import importlib
import importlib.util
import sys
from pathlib import Path

from vqlcmd.runtime.errors import ConfigError


def require_checkout(command: str) -> None:
    """ConfigError where `vqlcmd COMMAND` is given in a folder that is no checkout's root."""
    if not any(Path(name).is_file() for name in ("dvc.yaml", "params.yaml")):
        raise ConfigError(
            f"`vqlcmd {command}` needs a checkout of the project: run it in the root of one; what needs only a model,"
            " `vqlcmd sample`, gallery, inpaint and decode with --model FOLDER, runs anywhere"
        )


def run_stage(name: str) -> int:
    """Run a stage of the checkout that the command is given in; its exit code."""
    require_checkout(name)
    sys.path.insert(0, str(Path.cwd()))
    if importlib.util.find_spec("stages") is None:
        raise ConfigError(f"`vqlcmd {name}` is a stage of the pipeline: run it in the root of a checkout of it")
    return importlib.import_module(f"stages.{name}").main()
