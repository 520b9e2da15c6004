"""All benchmarks, one after the other, each in a process of its own: `python -m benchmarks`, which is `make bench`."""

import subprocess
import sys
import time

NAMES = ("step", "sample", "tokens", "tokenize", "evaluate", "start", "scaling")
"""In the order in which they run. gpu is for a GPU: `python -m benchmarks.gpu`."""


def main(*options: str) -> int:
    """Run all, with the same options; the number of those that failed."""
    start = time.monotonic()
    failed = [name for name in NAMES if subprocess.call([sys.executable, "-m", f"benchmarks.{name}", *options])]
    print(f"\n{len(NAMES)} benchmarks in {time.monotonic() - start:.0f} s" + "".join(f", {n} failed" for n in failed))
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
