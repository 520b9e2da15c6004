"""The README of an exported model: every word and number of it is from the files beside it."""

import json
from collections.abc import Iterator
from typing import Any

from vqlcmd.reports.comparison import MEASURED_BY
from vqlcmd.reports.revision import Revision, as_text

FRONT = ("library_name: vqlcmd", "pipeline_tag: unconditional-image-generation", "tags: [vq-lcmd, image-generation]")
SHOWN_CLASSES = 12
PROTOCOL = (*MEASURED_BY, "torch", "torch_fidelity")
"""Of metrics/protocol.json, what a reader has to know before comparing."""


def card(about: dict[str, Any], run: Revision | None) -> str:
    """Markdown with the hub's front matter: what the model is, how to use it, how good it is and how we know."""
    return (
        "\n".join([*_head(about, run), *_use(about), *(_numbers(run) if run else _no_numbers()), *_files(run)]) + "\n"
    )


def _head(about: dict[str, Any], run: Revision | None) -> Iterator[str]:
    data = f" on {run.params['dataset']}" if run else ""
    size = about["images"].get("size")
    yield from ("---", *FRONT, "---", "", f"# {about['method']}{data}", "")
    if run:
        yield from ("![samples, classes in columns](metrics/grid.png)", "")
    classes = about["classes"]
    rows, columns = about["grid"]
    yield (
        "A generative model over VQ tokens, trained with the pipeline of "
        f"[VQ-LCMD](https://arxiv.org/abs/2410.14758): method `{about['method']}`, {about['parameters']:,} parameters, "
        f"{f'{size} x {size} pixels as ' if size else ''}{rows} x {columns} tokens of {about['codes']:,} codes, "
        f"{len(classes) or 'no'} classes."
    )
    if classes:
        named = ", ".join(f"`{name}`" for name in classes[:SHOWN_CLASSES])
        more = f" and {len(classes) - SHOWN_CLASSES} more" if len(classes) > SHOWN_CLASSES else ""
        yield from ("", f"Classes, numbered from 0: {named}{more}.")
    if about["resumed_across"]:
        yield from ("", f"Its training was resumed across {len(about['resumed_across'])} edits of code or parameters.")


def _use(about: dict[str, Any]) -> Iterator[str]:
    first = "[0] * 16" if about["classes"] else "16"
    sampling = about["sampling"]
    own = "".join(f", {name} {value}" for name, value in sampling["own"].items())
    yield from ("", "## Use", "", "```python", "import vqlcmd", "")
    yield from (
        "# This folder, or hf://USER/NAME after pip install 'vqlcmd[hub]'",
        f'images = vqlcmd.load(".").sample({first})  # uint8 (16, 3, S, S)',
        "```",
        "",
        "```bash",
        "vqlcmd sample --model . --count 16 --out drawn",
        "```",
        "",
        f"Unless told otherwise it samples with {sampling['steps']} steps, sampler `{sampling['sampler']}`, guidance "
        f"{sampling['guidance']:g}{own} and seed {about['seed']}. Version of vqlcmd: {about['vqlcmd']}.",
    )


def _numbers(run: Revision) -> Iterator[str]:
    yield from ("", "## Numbers", "", "![images and their reconstructions](metrics/reconstructions.png)", "")
    yield (
        "Of generated images, and of the tokenizer's reconstructions of the real ones: what a perfect model would "
        "reach, more or less. A name ends in the network behind it; numbers of another network, other weights or "
        "another number of images do not compare."
    )
    yield from ("", "| metric | generated | reconstructed |", "|---|---|---|")
    yield from (f"| {' | '.join(row)} |" for row in run.numbers())
    yield from ("", *(f"- {note}" for note in run.notes()), "")
    for made in run.protocol:
        said = [f"{key} {_plain(made[key])}" for key in PROTOCOL if made.get(key) is not None]
        yield f"Protocol of the {made.get('of', 'numbers')}: {'; '.join(said)}."
        yield ""


def _no_numbers() -> Iterator[str]:
    yield from ("", "## Numbers", "", "Exported without any: nothing is claimed of how good it is.", "")


def _files(run: Revision | None) -> Iterator[str]:
    yield from ("## Files", "", "| file | what it is |", "|---|---|")
    yield "| `model/model.safetensors` | the model, with all that it takes to build and to sample it in its header |"
    yield "| `vqgan.safetensors` | its tokenizer |"
    if run:
        yield "| `params.yaml` | all parameters of the run |"
        yield "| `metrics/` | the numbers above, their protocol, and the curves of the training |"
    yield "| `vqlcmd.json` | the SHA-256 of each file, compared when the model is loaded |"


def _plain(value: Any) -> str:
    return as_text(value) if not isinstance(value, dict) else json.dumps(value, sort_keys=True)
