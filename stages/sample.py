"""model -> data/samples (token shards)."""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vqlcmd.costs import memory
from vqlcmd.diffusion import transformer
from vqlcmd.diffusion.method import Method
from vqlcmd.methods import load_method
from vqlcmd.params import RunParams, load_run
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import launcher, paths, pipeline, resume
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.batches import collect
from vqlcmd.runtime.distributed import barrier, device, rank, world
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.files import sha256
from vqlcmd.tokens import shards
from vqlcmd.tokens.header import grid_of


def run() -> None:
    """Sample the tokens of `sample.count` images: image i has class i mod C and its own stream of random numbers."""
    if paths.compiles():
        transformer.compile_network(cuda_graphs=device().type == "cuda")
    params = load_run()
    weights = paths.weights(params.weights)
    method, about = load_method(weights, device())
    tokenizer = paths.TOKENIZERS.get(params.domain)
    if tokenizer and tokenizer.is_file():
        # Not used here, but the samples will be decoded with it.
        belongs.check_belong(belongs.tokenizer(tokenizer), belongs.model(weights, about))
    classes = len(about["class_names"])
    balance = class_balance(params.sample.count, classes)
    if rank() == 0 and (note := balance_note(params.sample.count, classes)):
        print(f"sample: {note}", flush=True)
    if params.guidance and not classes:
        raise ConfigError(f"guidance is {params.guidance:g}, which needs classes, and this model has none: set it to 0")
    memory.require_sampling(
        memory.model_costs(about, params.sampling()),
        min(params.sample.batch_size, params.sample.count),
        device(),
    )
    settings = params.model_dump(
        mode="json", include={"seed", "weights", "sampler", "sample_steps", "guidance", "sample"}
    )
    this = resume.Run("sample", settings, sha256(weights), pipeline.code(params.model_dump(), "sample"))
    with resume.State.of(this, writer=rank() == 0) as state:
        barrier()
        found = _Found()
        size = params.sample.batch_size
        collect(
            "sample",
            params.sample.count,
            size,
            lambda first: _drawn(params, method, classes, first),
            found,
            state,
            unit=params.unit,
        )
        if rank() == 0:
            index = torch.arange(params.sample.count)
            labels = index % classes if classes else torch.zeros_like(index)
            edits = [*about.get("resumed_across", []), *state.edits]
            header = {
                "tokens": about["tokens"],
                "grid": grid_of(about, weights),
                "codes": about["codes"],
                "classes": about["class_names"],
                "parameters": sum(parameter.numel() for parameter in method.parameters()),
                "steps": method.steps(params.sampling()),
                "nfe": method.nfe(params.sampling()),
                "vqgan_digest": about["vqgan_digest"],
                "tokens_digest": about.get("tokens_digest"),
                "model_digest": this.inputs,
                "class_balance": balance,
                **settings,
                **({"resumed_across": edits} if edits else {}),
            }
            samples = {"samples": shards.Split(found.tokens(), labels, index)}
            shards.write_shards(paths.SAMPLES, samples, header, params.sample.count)
        barrier()
        state.finish()


def class_balance(count: int, classes: int) -> dict[str, int]:
    """Class balance of `count` images of class i mod C: number of classes drawn, fewest and most images of one.

    {} without classes.
    """
    if not classes:
        return {}
    return {"drawn": min(count, classes), "of": classes, "least": count // classes, "most": -(-count // classes)}


def balance_note(count: int, classes: int) -> str | None:
    """A note about the class balance where `count` is no multiple of the number of classes; else None."""
    if not classes or count % classes == 0:
        return None
    least, more = divmod(count, classes)
    if not least:
        return f"sample.count {count} draws {count} of {classes} classes: metrics compare them with images of all"
    return (
        f"sample.count {count} is no multiple of {classes} classes: {more} of them get {least + 1} images and "
        f"{classes - more} get {least}, which metrics compare with the data's own balance"
    )


class _Found:
    """What process 0 collects: the tokens, batch by batch, with the state saved after every batch."""

    seconds_between_saves = 0.0

    def __init__(self) -> None:
        self._batches: list[Tensor] = []

    def tokens(self) -> Tensor:
        return torch.cat(self._batches)

    def add(self, piece: Tensor) -> None:
        self._batches.append(piece)

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self._batches}

    def load_state_dict(self, saved: dict[str, Any]) -> bool:
        self._batches = saved["batches"]
        return True

    def wants_saving(self, finished: bool) -> bool:
        return finished


def _drawn(params: RunParams, method: Method, classes: int, first: int) -> Iterator[Tensor]:
    """This process's batches of the images from `first` on: tokens int32 (n, N)."""
    size, count = params.sample.batch_size, params.sample.count
    for start in range(first + size * rank(), count, size * world()):
        rows = torch.arange(start, min(start + size, count), device=device())
        label = rows % classes if classes else None
        tokens = method.sample(label, CounterRNG(params.seed, "sample", rows), params.sampling())
        yield tokens.cpu().int()


def main() -> int:
    """Run the stage as `python -m stages.sample` does; returns the exit code."""
    return launcher.main("sample", run, parallel=True)


if __name__ == "__main__":
    sys.exit(main())
