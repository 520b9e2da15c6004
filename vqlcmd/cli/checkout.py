"""What only a checkout of the project has, or a folder made by `vqlcmd init`: stages, parameters, tables."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

import vqlcmd
from vqlcmd.runtime.errors import ConfigError


def require_checkout(command: str) -> None:
    """Raises ConfigError if `vqlcmd COMMAND` is not run in a checkout's root; else goes on with the checkout's code."""
    if not any(Path(name).is_file() for name in ("dvc.yaml", "params.yaml")):
        raise ConfigError(
            f"`vqlcmd {command}` needs a checkout of the project: run it in the root of one, or make a folder with a"
            " pipeline by `vqlcmd init DIR`; what needs only a model, `vqlcmd sample`, gallery, inpaint and decode with"
            " --model FOLDER, runs anywhere"
        )
    hand_over()


def hand_over() -> None:
    """If this folder has its own copy of the code and another copy is running, starts again with that of the folder.

    Otherwise the installed package would read the parameters, while the folder's stages would run with it.
    """
    own = Path("vqlcmd/__init__.py")
    if not (own.is_file() and Path("dvc.yaml").is_file()) or own.samefile(vqlcmd.__file__):
        return
    path = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.stdout.flush()
    command = [sys.executable, "-m", "vqlcmd.cli.main", *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})


def run_stage(name: str) -> int:
    """Runs a stage of the checkout in the current folder; returns its exit code."""
    require_checkout(name)
    sys.path.insert(0, str(Path.cwd()))
    if importlib.util.find_spec("stages") is None:
        raise ConfigError(f"`vqlcmd {name}` is a stage of the pipeline: run it in the root of a checkout of it")
    return importlib.import_module(f"stages.{name}").main()
