"""The last run's metrics on text beside those of held-out text, and a line for each that is older than the data."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vqlcmd.params import load_text
from vqlcmd.reports import page, revision
from vqlcmd.reports.stale import changed, older
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.artefacts.json_file import read_json
from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.safetensors_file import read_about
from vqlcmd.text import corpus
from vqlcmd.tokens.header import read_header

SHOWN = 8
"""Samples that are printed on the terminal."""


def print_report(html: Path | None = None) -> None:
    """Prints the metrics, some samples, and what was not made from the present parameters and data.

    `html`: also writes all of that as a page.
    """
    page.check_ending(html)
    found = read_json(paths.METRICS / "evaluate.json", "`dvc repro` makes it")
    if not isinstance(found, dict):
        raise DataError(f"{paths.METRICS / 'evaluate.json'} holds no metrics: `dvc repro` makes it")
    console, heldout = Console(), found.get("heldout", {})
    table = Table(title="Generated text, and held-out text as the target")
    for column in ("metric", "generated", "held-out"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name in heldout:
        table.add_row(name, _number(found.get(name)), _number(heldout[name]))
    table.add_row("nfe per block", str(found.get("nfe", "")), "")
    console.print(table)
    bits = Table(title="Bits per character of the held-out text")
    bits.add_column("by")
    bits.add_column("bits", justify="right")
    error = _number(found.get("bits_per_character_error")) or "?"
    bits.add_row("this model, at most", f"{_number(found.get('bits_per_character'))} ± {error}")
    for name, value in found.get("compressed_bits_per_character", {}).items():
        bits.add_row(name.replace("_", " "), _number(value))
    console.print(bits)
    for name, reason in found.items():
        if name.endswith("_null"):
            print(f"no {name.removesuffix('_null')}: {reason}")
    samples = paths.METRICS / "samples.json"
    if samples.is_file():
        print(f"{samples}:")
        for text in read_json(samples, "`dvc repro` makes it")[:SHOWN]:
            print(f"  {text!r}")
    old = list(stale())
    for line in old:
        print(line)
    if html:
        page.write_report(revision.read(), old, html)
        print(f"{html}: the page")


def stale() -> Iterator[str]:
    """Yields a line for each thing in metrics/ and data/ that was not made from the present data/ and params.yaml."""
    params = load_text()
    places = {
        "tokenizer": paths.VOCABULARY,
        "tokens": paths.TOKENS,
        "model": paths.weights(params.weights),
        "samples": paths.SAMPLES,
        "reference": paths.LANGUAGE_MODEL,
    }
    missing = [str(path) for path in places.values() if not path.exists()]
    if missing:
        yield f"{' and '.join(missing)}: not there, so a run was interrupted or is going on. `dvc repro` goes on."
        return
    tokens, samples, model = read_header(paths.TOKENS), read_header(paths.SAMPLES), read_about(places["model"])
    language_model = read_about(paths.LANGUAGE_MODEL)["made_from"]
    here = {
        "tokenizer": belongs.tokenizer(paths.VOCABULARY),
        "tokens": belongs.tokens(paths.TOKENS, tokens),
        "model": belongs.model(places["model"], model),
        "samples": belongs.samples(paths.SAMPLES, samples),
        "reference": belongs.Artefact("reference", paths.REFERENCE, {"tokens": language_model["tokens_digest"]}),
    }
    for one, other in combinations(here.values(), 2):
        try:
            belongs.check_belong(one, other)
        except DataError as error:
            yield str(error)
    now = params.model_dump(mode="json")
    listed = paths.MANIFESTS / f"{params.dataset}.json"
    now["manifest"] = corpus.digest(corpus.read(listed)) if listed.is_file() else None
    made_from = {
        "tokens": {
            "text": tokens["text"],
            "dataset": tokens["manifest"]["name"],
            "manifest": tokens["manifest"]["digest"],
            "tokenize": {"holdout": tokens["holdout"], "passage": tokens["passage"], "block": tokens["tokens"]},
        },
        "model": model["params"],
        "samples": {key: samples[key] for key in ("seed", "weights", "sampler", "sample_steps", "guidance", "sample")},
        "reference": {"reference": language_model["reference"]},
    }
    for name, then in made_from.items():
        if changes := changed(then, now):
            yield f"{places[name]} is older than params.yaml: {changes}"
    for stage in ("evaluate", "bound"):
        yield from older(stage, f"{stage}.json", {name: here[name] for name in list(here)[:4]}, params)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
