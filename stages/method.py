"""params.yaml -> data/method.txt: the method's name, found to be one before DVC looks for its file."""

import sys

from vqlcmd.params import load_run
from vqlcmd.runtime import launcher, paths
from vqlcmd.runtime.files import atomic_write


def run() -> None:
    """Check params.yaml and write the name of its method.

    `train` depends on vqlcmd/methods/NAME.py, and DVC ends without a word of ours where that is missing; this stage
    comes first. It runs where the name changes, and its result is that name, so it makes nothing else run.

    Raises ConfigError, with the names there are.
    """
    params = load_run()
    with atomic_write(paths.METHOD) as side:
        side.write_text(f"{params.method}\n", encoding="utf-8")


def main() -> int:
    """Run the stage as `python -m stages.method` does; gives the exit code."""
    return launcher.main("method", run, parallel=False)


if __name__ == "__main__":
    sys.exit(main())
