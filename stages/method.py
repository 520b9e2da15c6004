"""params.yaml -> data/method.txt: the method's name, checked before DVC looks for the method's file."""

import sys

from vqlcmd.params import load_run
from vqlcmd.runtime import launcher, paths
from vqlcmd.runtime.files import atomic_write


def run() -> None:
    """Check params.yaml and write the name of its method.

    `train` depends on vqlcmd/methods/NAME.py, and where that is missing, DVC ends with an error that is not ours. So
    this stage comes first. It runs if the name changes, and its result is that name, so no other stage runs because of
    it.

    Raises ConfigError, which lists the methods, for an unknown name.
    """
    params = load_run()
    with atomic_write(paths.METHOD) as side:
        side.write_text(f"{params.method}\n", encoding="utf-8")


def main() -> int:
    """Run the stage as `python -m stages.method` does; returns the exit code."""
    return launcher.main("method", run, parallel=False)


if __name__ == "__main__":
    sys.exit(main())
