"""The README of an exported model: every word and number in it comes from the files beside it."""

import json
from collections.abc import Iterator
from typing import Any

from vqlcmd.reports.comparison import MEASURED_BY
from vqlcmd.reports.page import CAUTION
from vqlcmd.reports.revision import Revision, as_text

FRONT = {
    "images": ("pipeline_tag: unconditional-image-generation", "tags: [vq-lcmd, image-generation]"),
    "text": ("pipeline_tag: text-generation", "tags: [vq-lcmd, text-generation]"),
}
"""Front matter for the hub, by domain."""
SHOWN_TEXTS = 5
SHOWN_CLASSES = 12
PROTOCOL = (*MEASURED_BY, "torch", "torch_fidelity")
"""Keys of metrics/protocol.json that a reader has to know before comparing."""


def card(about: dict[str, Any], run: Revision | None) -> str:
    """Markdown with the hub's front matter: what the model is, how to use it, how good it is, how that was measured."""
    return (
        "\n".join([*_head(about, run), *_use(about), *(_numbers(run) if run else _no_numbers()), *_files(about, run)])
        + "\n"
    )


def _head(about: dict[str, Any], run: Revision | None) -> Iterator[str]:
    data = f" on {run.params['dataset']}" if run else ""
    yield from ("---", "library_name: vqlcmd", *FRONT[about["domain"]], "---", "", f"# {about['method']}{data}", "")
    if run and run.pictures:
        yield from ("![samples, classes in columns](metrics/grid.png)", "")
    yield (
        "A generative model over tokens, trained with the pipeline of "
        f"[VQ-LCMD](https://arxiv.org/abs/2410.14758): method `{about['method']}`, {about['parameters']:,} parameters, "
        f"{_tokens(about)}."
    )
    if classes := about["classes"]:
        named = ", ".join(f"`{name}`" for name in classes[:SHOWN_CLASSES])
        more = f" and {len(classes) - SHOWN_CLASSES} more" if len(classes) > SHOWN_CLASSES else ""
        yield from ("", f"Classes, numbered from 0: {named}{more}.")
    if about["resumed_across"]:
        yield from ("", f"Its training was resumed across {len(about['resumed_across'])} edits of code or parameters.")
    if run and run.samples:
        yield from ("", "The first of its samples, not picked:", "")
        yield from (f"    {_line(text)}" for text in run.samples[:SHOWN_TEXTS])


def _tokens(about: dict[str, Any]) -> str:
    rows, columns = about["grid"]
    if about["domain"] == "text":
        return f"blocks of {columns} tokens out of {about['codes']:,}, which stand for {about['text']['vocabulary']}"
    size = about["images"].get("size")
    pixels = f"{size} x {size} pixels as " if size else ""
    return f"{pixels}{rows} x {columns} tokens of {about['codes']:,} codes, {len(about['classes']) or 'no'} classes"


def _use(about: dict[str, Any]) -> Iterator[str]:
    sampling = about["sampling"]
    own = "".join(f", {name} {value}" for name, value in sampling["own"].items())
    yield from ("", "## Use", "", "```python", "import vqlcmd", "")
    yield "# This folder, or hf://USER/NAME after pip install 'vqlcmd[hub]'"
    if about["domain"] == "text":
        yield from ('model = vqlcmd.load_text(".")', "texts = model.sample(16)", "```", "", "```bash")
        yield "vqlcmd sample --model . --count 16 --out drawn.txt"
    else:
        first = "[0] * 16" if about["classes"] else "16"
        yield from (f'images = vqlcmd.load(".").sample({first})  # uint8 (16, 3, S, S)', "```", "", "```bash")
        yield "vqlcmd sample --model . --count 16 --out drawn"
    yield from (
        "```",
        "",
        f"Unless told otherwise it samples with {sampling['steps']} steps, sampler `{sampling['sampler']}`, guidance "
        f"{sampling['guidance']:g}{own} and seed {about['seed']}. Version of vqlcmd: {about['vqlcmd']}.",
    )


def _numbers(run: Revision) -> Iterator[str]:
    yield from ("", "## Numbers", "")
    if run.pictures:
        yield from ("![images and their reconstructions](metrics/reconstructions.png)", "")
    yield CAUTION.get(run.domain, "")
    yield from ("", f"| metric | generated | {run.target} |", "|---|---|---|")
    yield from (f"| {' | '.join(row)} |" for row in run.numbers())
    yield from ("", *(f"- {note}" for note in run.notes()), "")
    for made in run.protocol:
        said = [f"{key} {_plain(made[key])}" for key in PROTOCOL if made.get(key) is not None]
        yield f"Protocol of the {made.get('of', 'numbers')}: {'; '.join(said)}."
        yield ""


def _no_numbers() -> Iterator[str]:
    yield from ("", "## Numbers", "", "Exported without any: nothing is claimed of how good it is.", "")


def _files(about: dict[str, Any], run: Revision | None) -> Iterator[str]:
    yield from ("## Files", "", "| file | what it is |", "|---|---|")
    yield "| `model/model.safetensors` | the model, with all that it takes to build and to sample it in its header |"
    yield (
        "| `vocabulary.json` | its vocabulary |"
        if about["domain"] == "text"
        else "| `vqgan.safetensors` | its tokenizer |"
    )
    if run:
        yield "| `params.yaml` | all parameters of the run |"
        yield "| `metrics/` | the numbers above, their protocol, and the curves of the training |"
    yield "| `vqlcmd.json` | the SHA-256 of each file, compared when the model is loaded |"


def _line(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


def _plain(value: Any) -> str:
    return as_text(value) if not isinstance(value, dict) else json.dumps(value, sort_keys=True)
