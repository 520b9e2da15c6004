"""Commands that need only a model, wherever it is: sample, gallery, inpaint, decode and page."""

import gc
from pathlib import Path
from typing import Annotated, Any

import typer

from vqlcmd.cli import knobs
from vqlcmd.cli.checkout import run_stage
from vqlcmd.cli.knobs import KnobCommand
from vqlcmd.runtime.errors import ConfigError

Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="A folder with model/ and vqgan.safetensors, or of text vocabulary.json, as `dvc repro` makes them, or "
        "hf://USER/NAME.",
    ),
]
State = Annotated[
    str | None,
    typer.Option(
        "--state",
        help="Instead of --model, a training that is not over: its folder's name in .state/train, or `newest`.",
    ),
]
DATA = "data"
TEXT = ".txt"
"""The ending of --out for a model of text."""
Steps = Annotated[int | None, typer.Option(min=1, help="Steps. As in training, like whatever is left out.")]
Guidance = Annotated[float | None, typer.Option(min=0, help="Its scale w; needs classes.")]
Sampler = Annotated[str | None, typer.Option(help="One that the method has: `vqlcmd methods` lists them.")]
Precision = Annotated[
    str | None, typer.Option(help="float32, tf32 or bf16: of the network, and of the decoder of images.")
]
SampleSeed = Annotated[int | None, typer.Option("--seed", min=0, help="Of the random numbers.")]


def decode(
    out: Annotated[
        Path,
        typer.Option(help="A folder for PNG files, FILE.npz (arr_0, NHWC uint8) for the ADM evaluator, or FILE.txt."),
    ],
    count: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images at once. As in sampling, if left out.")] = None,
    model: Model = DATA,
    samples: Annotated[Path | None, typer.Option(help="Their folder. [default: samples/ in that of --model]")] = None,
) -> None:
    """Decode the samples of the pipeline to images, or to text if --out ends in .txt."""
    if out.suffix == TEXT:
        from vqlcmd.cli.export import decode_text

        decode_text(model, samples, out, count)
        return
    from vqlcmd.cli.export import decode_samples

    decode_samples(model, samples, out, count, batch_size)


def sample(
    context: typer.Context,
    class_: Annotated[
        str | None, typer.Option("--class", help="Images of this class: its name, or its number from 0.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many images.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for PNG files, FILE.npz, or FILE.txt of a model of text.")
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    precision: Precision = None,
    seed: SampleSeed = None,
    model: Model = DATA,
    state: State = None,
) -> None:
    """Sample images or text from a model to --out; without options, run the pipeline's stage.

    The stage writes data/samples, with parameters from params.yaml.
    """
    if out is None:
        given = [
            name for name in context.params if getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"
        ]
        given += knobs.given(context)
        if given:
            named = ", ".join(sorted(f"--{name.strip('_')}" for name in given))
            raise ConfigError(f"{named}: needs --out DIR; without options this is the pipeline's stage")
        raise typer.Exit(run_stage("sample"))
    how: dict[str, Any] = {"steps": steps, "guidance": guidance, "sampler": sampler, "precision": precision}
    how |= {"seed": seed, **knobs.given(context)}
    if out.suffix == TEXT:
        from vqlcmd.cli.export import sample_text

        if class_ is not None:
            raise ConfigError(f"--class {class_}: text has no classes; leave the option out")
        sample_text(model, out, count or 16, state=state, **how)
        return
    from vqlcmd.cli.export import sample_images

    sample_images(model, out, class_, count or 16, state=state, **how)


def inpaint(
    context: typer.Context,
    image: Annotated[Path, typer.Argument(help="A picture; it is cropped and resized as the training images were.")],
    mask: Annotated[
        Path,
        typer.Argument(help="A picture of the same size: white where to paint anew, black or transparent to keep."),
    ],
    out: Annotated[Path, typer.Option(help="PNG: the picture, what is kept of it, and the results.")] = Path("out.png"),
    class_: Annotated[
        str | None, typer.Option("--class", help="What to paint: the class's name, or its number from 0.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many results.")] = 8,
    steps: Steps = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    precision: Precision = None,
    seed: SampleSeed = None,
    whole_tokens: Annotated[
        bool, typer.Option("--whole-tokens", help="Take all pixels of a token that is drawn anew, not the white alone.")
    ] = False,
    model: Model = DATA,
) -> None:
    """Repaint the part of IMAGE that is white in MASK, with a model and its tokenizer."""
    from vqlcmd.cli.export import inpaint_image

    how: dict[str, Any] = {
        "steps": steps,
        "guidance": guidance,
        "sampler": sampler,
        "precision": precision,
        "seed": seed,
        "whole_tokens": whole_tokens,
    }
    inpaint_image(model, image, mask, out, class_, count, **how, **knobs.given(context))


def gallery(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="FILE.png")],
    guidance: Annotated[str | None, typer.Option(help="Scales: 0,1,2,4. Each has --rows rows.")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows for each scale, other seeds each.")] = 8,
    steps: Steps = None,
    sampler: Sampler = None,
    precision: Precision = None,
    seed: SampleSeed = None,
    model: Model = DATA,
    state: State = None,
) -> None:
    """Draw samples of a model as one picture with classes in columns, like the paper's Figures 3, 4 and 7 to 10."""
    from vqlcmd.cli.export import draw_gallery

    how: dict[str, Any] = {"steps": steps, "sampler": sampler, "precision": precision, "seed": seed}
    draw_gallery(model, out, guidance, rows, state=state, **how, **knobs.given(context))


def page(
    model: Annotated[
        list[str] | None, typer.Option("--model", help="As for `vqlcmd sample`; more than one to compare. [data]")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="[default: the first free one from 7860]")] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 lets other machines in, whoever they are.")
    ] = "127.0.0.1",
    show: Annotated[bool, typer.Option("--open", help="Open a browser on it.")] = False,
) -> None:
    """Serve a page in the browser to sample, paint, compare models and look inside them.

    It runs on this machine and needs no Internet.
    """
    # Imports create hundreds of thousands of objects that stay; looking for garbage among them takes a fifth of the
    # time until the page is up. `serve` enables garbage collection again.
    gc.disable()
    from vqlcmd.page.process import started

    with started(model or [DATA]) as models:
        # This process imports Gradio while the other one loads the models.
        from vqlcmd.page.browser.app import serve

        serve(models, host, port, show)


def mount(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command()(decode)
    app.command()(page)
    for command in (sample, inpaint, gallery):
        app.command(cls=KnobCommand)(command)
