"""What only a checkout of the project has, or a folder of `vqlcmd init`: the stages, parameters, tables."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

import vqlcmd
from vqlcmd.runtime.errors import ConfigError


def require_checkout(command: str) -> None:
    """ConfigError where `vqlcmd COMMAND` is given in a folder that is no checkout's root."""
    if not any(Path(name).is_file() for name in ("dvc.yaml", "params.yaml")):
        raise ConfigError(
            f"`vqlcmd {command}` needs a checkout of the project: run it in the root of one, or make a folder with a"
            " pipeline by `vqlcmd init DIR`; what needs only a model, `vqlcmd sample`, gallery, inpaint and decode with"
            " --model FOLDER, runs anywhere"
        )
    hand_over()


def hand_over() -> None:
    """Where this folder has the code of its pipeline and this is another one's, go on as `python -m` would: with it.

    Otherwise the installed package would read the parameters, and the folder's stages would run with it.
    """
    own = Path("vqlcmd/__init__.py")
    if not (own.is_file() and Path("dvc.yaml").is_file()) or own.samefile(vqlcmd.__file__):
        return
    path = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.stdout.flush()
    command = [sys.executable, "-m", "vqlcmd.cli.main", *sys.argv[1:]]
    os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})


def run_stage(name: str) -> int:
    """Run a stage of the checkout that the command is given in; its exit code."""
    require_checkout(name)
    sys.path.insert(0, str(Path.cwd()))
    if importlib.util.find_spec("stages") is None:
        raise ConfigError(f"`vqlcmd {name}` is a stage of the pipeline: run it in the root of a checkout of it")
    return importlib.import_module(f"stages.{name}").main()
