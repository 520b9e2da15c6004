"""Several runs side by side: what was varied, the results, and whether the numbers are comparable."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vqlcmd.precision import FLOAT32
from vqlcmd.reports.revision import OF_THE_TOKENIZER, Revision, as_text
from vqlcmd.reports.stale import HOW_IT_RUNS
from vqlcmd.runtime.errors import ConfigError

MEASURED_BY = (
    "extractor",
    "weights_sha256",
    "precision_extractor",
    "precision_weights_sha256",
    "generated_images",
    "real_images",
    "precision_generated_images",
    "precision_real_images",
    "neighbours",
    "kid",
    "inception_score_splits",
    "precision",
    "reference_precision",
    "statistics",
    "text",
    "blocks",
    "heldout_blocks",
    "language_model",
)
"""Keys of the protocol on which two numbers must agree to be comparable."""
UNSAID = {"precision": FLOAT32, "reference_precision": FLOAT32}
"""The values that held when a protocol was written without the key."""
IN_A_LABEL = 3
"""The most parameters in a label; if more differ, a run is labelled by its name."""
LONGEST = 60


@dataclass(frozen=True)
class Comparison:
    """Runs, a label for each, and rows as {name: a text for each run}."""

    runs: tuple[Revision, ...]
    labels: tuple[str, ...]
    """What was varied, such as `drop 0.3`; no two are equal."""
    varied: dict[str, list[str]]
    """Parameters that differ; "-" if a run does not have the parameter."""
    numbers: dict[str, list[str]]
    """Numbers of the samples, then of reconstructions or held-out text."""
    remarks: list[str]


def compare(runs: Sequence[Revision]) -> Comparison:
    """What differs between `runs`; the first one is what the others are compared with.

    Raises ConfigError if the tokens of some stand for something else than those of the first.
    """
    other = [run for run in runs if run.domain != runs[0].domain]
    if other:
        raise ConfigError(
            f"{runs[0].name} is of {runs[0].domain} and {other[0].name} of {other[0].domain}, which have no number in "
            "common: compare runs of one domain"
        )
    keys = dict.fromkeys(key for run in runs for key in run.params)
    varied = {key: [run.params.get(key) for run in runs] for key in keys}
    varied = {key: values for key, values in varied.items() if any(value != values[0] for value in values[1:])}
    # Parameters that some version does not know were not varied, and come last.
    known = [key for key in varied if all(key in run.params for run in runs)]
    varied = dict.fromkeys([*known, *varied])
    counted = [key for key in known if key.rpartition(".")[2] not in HOW_IT_RUNS]
    return Comparison(
        runs=tuple(runs),
        labels=_labels(runs, counted),
        varied={key: [_value(run, key) for run in runs] for key in varied},
        numbers=_numbers(runs),
        remarks=_remarks(runs),
    )


def _labels(runs: Sequence[Revision], keys: Sequence[str]) -> tuple[str, ...]:
    said = [", ".join(f"{key} {_value(run, key)}" for key in keys) for run in runs]
    plain = 0 < len(keys) <= IN_A_LABEL and len(set(said)) == len(runs) and max(map(len, said)) <= LONGEST
    labels = said if plain else [run.name for run in runs]
    return tuple(label if labels.count(label) == 1 else f"{label} ({n})" for n, label in enumerate(labels, 1))


def _value(run: Revision, key: str) -> str:
    return as_text(run.params[key]) or "null" if key in run.params else "-"


def _numbers(runs: Sequence[Revision]) -> dict[str, list[str]]:
    each = [run.numbers() for run in runs]
    generated = [{name: value for name, value, _ in rows} for rows in each]
    of = " of held-out text" if runs[0].domain == "text" else " of reconstructions"
    targets = [
        {f"{name}{'' if name.startswith(OF_THE_TOKENIZER) else of}": value for name, _, value in rows if value}
        for rows in each
    ]
    # Whatever else was measured, in any domain.
    others = [
        {key: as_text(value) for key, value in run.evaluate.items() if isinstance(value, int | float) and key != "nfe"}
        for run in runs
    ]
    columns = [first | other | second for first, other, second in zip(generated, others, targets, strict=True)]
    names = dict.fromkeys(name for column in columns for name in column)
    rows = {name: [column.get(name, "") for column in columns] for name in names}
    return {name: values for name, values in rows.items() if any(values)}


def _remarks(runs: Sequence[Revision]) -> list[str]:
    """Reasons not to compare the numbers, or the pictures."""
    protocols = [next((made for made in run.protocol if made.get("of") == "samples"), {}) for run in runs]
    remarks = [
        f"{run.name} has no protocol: nobody knows how its numbers were measured"
        for run, made in zip(runs, protocols, strict=True)
        if not made
    ]
    known = [UNSAID | made for made in protocols if made]
    different = [key for key in MEASURED_BY if any(made.get(key) != known[0].get(key) for made in known[1:])]
    if different:
        values = "; ".join(f"{key} {', '.join(_short(made.get(key)) for made in known)}" for key in different)
        remarks.append(f"The numbers were measured in different ways and do not compare: {values}")
    seeds = {run.params.get("seed") for run in runs}
    if len(seeds) > 1:
        remarks.append("The seeds differ, so that the samples of the grids were drawn with other noise")
    return remarks


def _short(value: Any) -> str:
    text = as_text(value.get("sha256", value.get("digest")) if isinstance(value, dict) else value) or "none"
    return f"{text[:12]}..." if len(text) == 64 else text
