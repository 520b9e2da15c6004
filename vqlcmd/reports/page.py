"""One offline HTML file for one run or several: pictures and curves are embedded, and nothing is loaded."""

import base64
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from vqlcmd.reports.charts import curves
from vqlcmd.reports.comparison import Comparison
from vqlcmd.reports.revision import PICTURES, Revision, as_text
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.files import atomic_write

PANELS = {
    "training and held-out loss": ("loss", "heldout_loss"),
    "cross-entropy at five times": ("ce_0.1", "ce_0.25", "ce_0.5", "ce_0.75", "ce_0.9"),
    "embedding norm and distances": ("embedding_norm", "embedding_distance", "embedding_distance_min"),
    "embedding rank": ("embedding_rank",),
}
"""For one run: the columns of metrics/train.tsv in each panel, as in dvc.yaml."""
COMPARED = ("loss", "heldout_loss", "ce_0.5", "embedding_norm", "embedding_distance_min", "embedding_rank")
"""For several runs: a panel for each of these columns, with a line for each run."""


TEXTS = 20
"""The most samples of text on a page."""
CAUTION = {
    "images": "A name ends in the network behind it; numbers of another network, other weights or another number of "
    "images do not compare. Reconstructions are real images through the tokenizer: about what a perfect model would "
    "reach.",
    "text": "A name that ends in proxy is by a language model of the training text; numbers by another one, or of "
    "another text or number of blocks, do not compare. Held-out text is about what a perfect model would reach.",
}
"""{`domain` in params.yaml: what a reader of the numbers has to know}."""
SAME_NOISE = {
    "images": "The same place in two grids has the same class and the same random numbers.",
    "text": "The same line of two lists has the same random numbers.",
}


def check_ending(html: Path | None) -> None:
    """Raises ConfigError, before a page is made, if its name does not end in .html or .htm."""
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{html} does not end in .html, which the page will be: change its ending")


def write_report(run: Revision, stale: Sequence[str], path: Path) -> None:
    """Writes the page of one run. `stale` has a line for each thing that does not belong to the present parameters."""
    columns = {row: (generated, reconstructed) for row, generated, reconstructed in run.numbers()}
    charts = {
        title: curves(title, {name: (run.curves["step"], run.curves[name]) for name in names if name in run.curves})
        for title, names in PANELS.items()
        if "step" in run.curves
    }
    _write(
        path,
        [run],
        title=f"{run.params.get('method', 'A run')} on {run.params.get('dataset', 'data')}",
        subtitle=f"Of {run.name}, by vqlcmd report.",
        remarks=list(stale),
        columns=["generated", run.target],
        numbers=columns,
        charts=charts,
        albums={PICTURES[file]: {file: png} for file, png in run.pictures.items()},
        samples={"": run.samples[:TEXTS]} if run.samples else {},
    )


def write_comparison(made: Comparison, path: Path) -> None:
    """Writes the page of several runs, with pictures of the same kind side by side."""
    lines = dict(zip(made.labels, made.runs, strict=True))
    charts = {
        name: curves(
            name, {label: (run.curves["step"], run.curves[name]) for label, run in lines.items() if name in run.curves}
        )
        for name in COMPARED
    }
    albums = {
        text: {label: run.pictures[file] for label, run in lines.items() if file in run.pictures}
        for file, text in PICTURES.items()
    }
    same = len({run.params.get("seed") for run in made.runs}) == 1
    _write(
        path,
        made.runs,
        title=" / ".join(run.name for run in made.runs),
        subtitle="By vqlcmd compare.",
        remarks=made.remarks,
        columns=list(made.labels),
        numbers=made.numbers,
        charts=charts,
        albums={text: pictures for text, pictures in albums.items() if pictures},
        samples={label: run.samples[:TEXTS] for label, run in lines.items() if run.samples},
        names=[run.name for run in made.runs],
        varied=made.varied,
        same_noise=SAME_NOISE.get(made.runs[0].domain, "") if same else "",
    )


def _write(
    path: Path,
    runs: Sequence[Revision],
    *,
    charts: Mapping[str, str | None],
    albums: Mapping[str, Mapping[str, bytes]],
    **values: Any,
) -> None:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(resources.files("vqlcmd.reports").joinpath("page.html").read_text("utf-8"))
    several = len(runs) > 1
    names = [f"{run.name}: " if several else "" for run in runs]
    notes = [f"{name}{note}" for name, run in zip(names, runs, strict=True) for note in run.notes()]
    text = template.render(
        {
            "names": [],
            "varied": {},
            "same_noise": "",
            "caution": CAUTION.get(runs[0].domain, ""),
            "runs": runs,
            "notes": notes,
            "charts": {title: _inline("svg+xml", svg.encode()) for title, svg in charts.items() if svg},
            "albums": {
                title: {label: _inline("png", png) for label, png in pictures.items()}
                for title, pictures in albums.items()
            },
            "protocols": {
                f"{name}{made.get('of', 'numbers')}": {key: _text(value) for key, value in made.items()}
                for name, run in zip(names, runs, strict=True)
                for made in run.protocol
            },
            "parameters": {
                run.name: {key: _text(value) for key, value in run.params.items()} for run in runs if run.params
            },
            **values,
        }
    )
    with atomic_write(path) as side:
        side.write_text(text, encoding="utf-8")


def _inline(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list | bool) else as_text(value) or "null"
