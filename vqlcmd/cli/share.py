"""Commands for what leaves a checkout: export and publish a model, begin a pipeline in another folder."""

import shlex
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from vqlcmd.cli.checkout import require_checkout

DATA = Path("data")
Trained = Annotated[Path, typer.Option("--model", help="A folder with model/ and vqgan.safetensors.")]
NoMetrics = Annotated[
    bool, typer.Option("--no-metrics", help="Model and tokenizer alone: no numbers, pictures and params.yaml.")
]


def export(
    folder: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    model: Trained = DATA,
    no_metrics: NoMetrics = False,
) -> None:
    """Export a model to a folder: model, tokenizer, parameters, metrics with their protocol, digests and a README."""
    _export(folder, model, no_metrics)
    print(f"{folder}: `vqlcmd sample --model {folder} --out DIR` samples from it anywhere")


def publish(
    place: Annotated[str, typer.Argument(help="hf://USER/NAME, made unless it is there.")],
    folder: Annotated[
        Path | None, typer.Argument(help="What `vqlcmd export` made. [default: an export of what lies here]")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Where it is made now, for nobody else to see.")] = False,
    model: Trained = DATA,
    no_metrics: NoMetrics = False,
) -> None:
    """Publish a model on the Hugging Face hub, from which `vqlcmd.load("hf://USER/NAME")` and --model load it."""
    from vqlcmd.pretrained import hub

    hub.parse(place)
    with tempfile.TemporaryDirectory() as scratch:
        if folder is None:
            folder = Path(scratch) / "exported"
            _export(folder, model, no_metrics)
        print(f"{place}: {hub.publish(place, folder, private=private)}")


def init(
    folder: Annotated[Path, typer.Argument(help="A folder that is empty or not there yet.")],
    preset: Annotated[str, typer.Option(help="Whose values params.yaml begins with.")] = "digits",
) -> None:
    """Make a folder with a pipeline of your own: stages, parameters, presets, tables, and a copy of the code."""
    from vqlcmd.sharing.start import start

    start(folder, preset)
    print(f"{folder}: params.yaml is presets/{preset}.yaml. Next, since DVC works in a Git repository:")
    print(f"  cd {shlex.quote(str(folder))} && git init && git add . && git commit -m Pipeline")
    print("  dvc repro                       # after `vqlcmd scan`, where the data is not the demo's")


def _export(folder: Path, model: Path, no_metrics: bool) -> None:
    if not no_metrics:
        require_checkout("export")
    from vqlcmd.sharing.export import export

    export(folder, model, with_metrics=not no_metrics)


def mount(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    for command in (export, publish, init):
        app.command()(command)
