"""What one run left: the parameters, numbers, curves and pictures of the working tree, a commit or an experiment."""

import csv
import io
import math
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqlcmd.experiments.table import differences
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts.json_file import parse_json
from vqlcmd.runtime.errors import ConfigError, DataError, shown
from vqlcmd.runtime.yaml_file import parse_yaml

WORKSPACE = "workspace"
"""The name of the working tree, whether it is committed or not."""
PICTURES = {
    "grid.png": "samples, classes in columns",
    "reconstructions.png": "real images above their reconstructions by the VQGAN",
    "nearest.png": "samples above the training images that they come nearest to",
    "embeddings.png": "norms and distances: VQGAN codebook above, learned embeddings below",
    "schedule.png": "the noise schedule",
}
MEASURES = ("fid", "kid", "is_", "precision", "recall", "class_accuracy", "nearest")
"""Prefixes of the numbers in metrics/evaluate.json that samples and reconstructions have."""
TOKENIZER = ("psnr", "ssim", "perceptual", "fid_efficientnet", "codes_used", "perplexity", "skipped")
"""Numbers of metrics/vqgan.json, which it has if the tokenizer was trained here."""
OF_THE_TOKENIZER = "tokenizer: "
"""What their names begin with in a report."""
LIMIT = 0.5
"""The tokenizer is the limit if the FID of reconstructions is more than this fraction of the samples'."""
SMEARED = 18.0
"""PSNR in dB below which reconstructions are smears. Our choice: docs/training_a_tokenizer.md shows 15 and 24 dB."""
UNUSED = 0.5
"""With a smaller share of its codes in use, a codebook has collapsed. Our choice."""

Fetch = Callable[[Path], bytes | None]


@dataclass(frozen=True)
class Revision:
    """A run as the files that it left; what it did not leave is empty."""

    name: str
    params: dict[str, Any]
    """{dotted key: value}."""
    vqgan: dict[str, Any]
    evaluate: dict[str, Any]
    bound: dict[str, Any]
    protocol: list[dict[str, Any]]
    curves: dict[str, list[float]]
    """{column of metrics/train.tsv: its values}; NaN where the file has no number."""
    pictures: dict[str, bytes]
    """{file name of PICTURES: PNG}."""
    samples: list[str]
    """For text: some samples."""

    @property
    def domain(self) -> str:
        """What the tokens stand for."""
        return str(self.params.get("domain", "images"))

    @property
    def target(self) -> str:
        """What samples are compared with, in one word."""
        return "held-out" if self.domain == "text" else "reconstructed"

    def numbers(self) -> list[tuple[str, str, str]]:
        """(metric, value of the samples, value of what they are compared with) for each metric, as text."""
        if self.domain == "text":
            return list(_text_numbers(self.evaluate, self.bound))
        known = [name for name in TOKENIZER if self.vqgan.get(name) is not None]
        tokenizer = [(f"{OF_THE_TOKENIZER}{name}", "", as_text(self.vqgan[name])) for name in known]
        return [*tokenizer, *(_numbers(self.evaluate, self.bound) if self.evaluate or self.bound else [])]

    def limits(self) -> list[str]:
        """What is bad about the tokenizer, a line each, with what to change.

        Its PSNR if it is below `SMEARED`, its codebook if less than `UNUSED` of it is used, and each FID of which it
        alone makes more than `LIMIT`.
        """
        knobs = "another `vqgan.checkpoint`, or train on from it with `vqgan.init`"
        if self.params.get("vqgan.checkpoint") is None:
            knobs = "more tokens (one entry of `vqgan.ch_mult` less), `vqgan.n_embed` or `vqgan.fit.steps`"
        return [*self._poor(knobs), *self._shares(knobs)]

    def _poor(self, knobs: str) -> Iterator[str]:
        psnr, used = self.vqgan.get("psnr"), self.vqgan.get("codes_used")
        if isinstance(psnr, int | float) and psnr < SMEARED:
            yield (
                f"the tokenizer's reconstructions are smears, so samples will be: psnr is {as_text(psnr)} dB, below "
                f"{SMEARED:g}. Turn {knobs}: docs/training_a_tokenizer.md"
            )
        if isinstance(used, int | float) and used < UNUSED:
            yield (
                f"the tokenizer uses {used:.0%} of its codes, less than {UNUSED:.0%}: lower `vqgan.n_embed`, or raise "
                "`vqgan.fit.restart`: docs/training_a_tokenizer.md"
            )

    def _shares(self, knobs: str) -> list[str]:
        targets = self.evaluate.get("reconstruction", {})
        pairs = {name: (value, targets.get(name)) for name, value in self.evaluate.items() if name.startswith("fid_")}
        return [
            f"the tokenizer is the limit, not the model: {name} of its reconstructions is {as_text(target)}, of the "
            f"samples {as_text(value)}. Turn {knobs}: docs/training_a_tokenizer.md"
            for name, (value, target) in pairs.items()
            if isinstance(value, int | float) and isinstance(target, int | float) and target > LIMIT * value
        ]

    def notes(self) -> list[str]:
        """What limits the run, why a number is null, and what to be careful with."""
        named = [*self.evaluate.items(), *self.bound.items()]
        nulls = [f"no {name.removesuffix('_null')}: {reason}" for name, reason in named if name.endswith("_null")]
        return [*self.limits(), *nulls, *(f"note: {note}" for note in self.evaluate.get("notes", []))]


def read(name: str = WORKSPACE) -> Revision:
    """What a commit, branch, tag or experiment left, by its name; by default, what is in the working tree.

    Raises ConfigError if the repository has nothing of this name, and DataError if a file is damaged or there are no
    metrics, not even the tokenizer's.
    """
    fetch = _here if name == WORKSPACE else _committed(name)
    params = differences({}, _yaml(fetch, Path("params.yaml"), name))
    # A repository may hold files of the other domain's pipeline, which were made by another run.
    text = params.get("domain") == "text"
    found = Revision(
        name=name,
        params=params,
        vqgan={} if text else _object(fetch, paths.METRICS / "vqgan.json", name),
        evaluate=_object(fetch, paths.METRICS / "evaluate.json", name),
        bound=_object(fetch, paths.METRICS / "bound.json", name),
        protocol=_list(fetch, paths.METRICS / "protocol.json", name),
        curves=_curves(fetch(paths.METRICS / "train.tsv") or b""),
        pictures={} if text else {file: png for file in PICTURES if (png := fetch(paths.METRICS / file))},
        samples=[str(each) for each in _values(fetch, paths.METRICS / "samples.json", name)] if text else [],
    )
    if not (found.evaluate or found.bound or found.curves or found.vqgan):
        raise DataError(f"{shown(name)} has no metrics: `dvc repro` makes them, or name another revision")
    return found


def as_text(value: Any) -> str:
    """A float with four significant digits, any other value as it prints; "" for None."""
    if value is None or isinstance(value, bool):
        return "" if value is None else str(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _numbers(found: dict[str, Any], bound: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    targets = found.get("reconstruction", {})
    for name in found:
        if name.startswith(MEASURES) and not isinstance(found[name], str):
            yield name, as_text(found[name]), as_text(targets.get(name))
    yield "repeated_training_tokens", as_text(found.get("repeated_training_tokens")), ""
    nats, error = bound.get("nats_per_token"), bound.get("standard_error")
    yield "bound, nats per token", "" if nats is None else f"{as_text(nats)} ± {as_text(error) or '?'}", ""
    yield "nfe per image", as_text(found.get("nfe")), ""


def _text_numbers(found: dict[str, Any], bound: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    heldout = found.get("heldout", {})
    for name in heldout:
        yield name, as_text(found.get(name)), as_text(heldout[name])
    bits, error = found.get("bits_per_character"), found.get("bits_per_character_error")
    yield "bits per character, at most", "" if bits is None else f"{as_text(bits)} ± {as_text(error) or '?'}", ""
    for name, value in found.get("compressed_bits_per_character", {}).items():
        yield f"bits per character by {name.replace('_', ' ')}", "", as_text(value)
    yield "bound, nats per token", as_text(bound.get("nats_per_token")), ""
    yield "nfe per block", as_text(found.get("nfe")), ""


def _here(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _committed(name: str) -> Fetch:
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}") or _experiment(name)
    if not commit:
        raise ConfigError(
            f"{shown(name)} is no commit, branch, tag or experiment here: `git log` and `dvc exp list --all` name "
            f"them, and `{WORKSPACE}` is what lies here"
        )
    at = commit.decode().strip()
    # Relative, since a pipeline may be in a sub-folder of a repository.
    return lambda path: _git("show", f"{at}:./{path.as_posix()}")


def _experiment(name: str) -> bytes | None:
    """The commit of an experiment: DVC keeps experiments as refs/exps/AB/CDEF.../NAME."""
    listed = (_git("for-each-ref", "refs/exps", "--format=%(objectname) %(refname)") or b"").decode().splitlines()
    found = [line.split(" ", 1)[0] for line in listed if line.rsplit("/", 1)[-1] == name]
    return found[-1].encode() if found else None


def _git(*words: str) -> bytes | None:
    try:
        done = subprocess.run(["git", *words], capture_output=True, check=False)
    except FileNotFoundError:
        raise ConfigError("git is not installed, and other revisions are read through it: install it") from None
    return done.stdout if done.returncode == 0 else None


def _yaml(fetch: Fetch, path: Path, name: str) -> dict[str, Any]:
    text = fetch(path)
    if text is None:
        return {}
    values = parse_yaml(text, f"{path} of {shown(name)}")
    return values if isinstance(values, dict) else {}


def _object(fetch: Fetch, path: Path, name: str) -> dict[str, Any]:
    text = fetch(path)
    values = {} if text is None else parse_json(text, f"{path} of {shown(name)}", "`dvc repro` makes it")
    if not isinstance(values, dict):
        raise DataError(f"{path} of {shown(name)} holds no metrics: `dvc repro` makes it")
    return values


def _list(fetch: Fetch, path: Path, name: str) -> list[dict[str, Any]]:
    return [each for each in _values(fetch, path, name) if isinstance(each, dict)]


def _values(fetch: Fetch, path: Path, name: str) -> list[Any]:
    text = fetch(path)
    values = [] if text is None else parse_json(text, f"{path} of {shown(name)}", "`dvc repro` makes it")
    return values if isinstance(values, list) else []


def _curves(text: bytes) -> dict[str, list[float]]:
    rows = list(csv.reader(io.StringIO(text.decode("utf-8", "replace")), delimiter="\t"))
    if not rows:
        return {}
    header, *lines = rows
    return {
        name: [_number(line[index]) if index < len(line) else math.nan for line in lines]
        for index, name in enumerate(header)
    }


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
