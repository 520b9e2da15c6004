"""All comparisons, or those that are named: `python -m benchmarks.peers tokenizer records`."""

import argparse
import importlib

from benchmarks.measure import Report, use_cpu_seconds
from vqlcmd.runtime.machine import disable_malloc_trim

NAMES = ("tokenizer", "metrics", "records", "generate", "encoder")


def main(names: tuple[str, ...] = NAMES, tiny: bool = False) -> dict[str, float]:
    """The ratios of these comparisons."""
    disable_malloc_trim()
    report = Report("peers", "what a user would pick instead, against ours")
    for name in names:
        try:
            importlib.import_module(f"benchmarks.peers.{name}").compare(report, tiny)
        except ModuleNotFoundError as error:
            report.say(f"\n{name}: {error.name} is not installed, see the group `peers` in pyproject.toml")
    return report.ratios


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--tiny", action="store_true", help="so small that it says nothing, for the tests")
    parser.add_argument("--cpu", action="store_true", help="seconds of computing, for a machine that is busy")
    given = parser.parse_args()
    if given.cpu:
        use_cpu_seconds()
    main(tuple(given.names) or NAMES, given.tiny)
