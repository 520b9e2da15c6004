"""tokens, the method's knobs -> data/model (EMA weights, snapshots), metrics/train.tsv and metrics/train.json."""

import math
import sys

import torch

from vqlcmd import methods
from vqlcmd.diffusion import transformer
from vqlcmd.diffusion.method import Method
from vqlcmd.methods import save_method
from vqlcmd.params import load_params
from vqlcmd.runtime import launcher, paths, resume
from vqlcmd.runtime.distributed import device, rank
from vqlcmd.runtime.files import replace_folder, write_json, write_tsv
from vqlcmd.runtime.loggers import LOGGERS
from vqlcmd.tokens import shards, streaming
from vqlcmd.training.loop import train

NOT_RESULTS = ("save_every", "logger")
"""Of the section `train`: how a run is kept and watched; no dependency of the stage."""


def run() -> None:
    """Train the method that params.yaml names, from the start or from where the same run stopped."""
    if paths.compiles():
        transformer.compile_network()
    params = load_params()
    header = shards.read_header(paths.TOKENS)
    codebook_KD = shards.read_codebook(paths.TOKENS)
    split = streaming.open_split(paths.TOKENS, "train", device(), paths.token_memory())
    heldout = shards.read_split(paths.TOKENS, "heldout").to(device())
    classes = shards.class_count(header, params.train.use_classes, params.guidance)
    torch.manual_seed(params.seed)
    method = methods.build(params, codebook_KD, header["tokens"], classes).to(device())
    method.check(params.sampling())

    settings = params.model_part().model_dump(mode="json")
    for key in NOT_RESULTS:
        del settings["train"][key]
    name = resume.fingerprint(settings, header, resume.sources(*paths.CODE))
    writer = rank() == 0
    with (
        resume.State(launcher.state_root() / "train" / name, writer=writer) as state,
        LOGGERS[params.train.logger if writer else "none"](launcher.state_root() / "logs" / name, settings) as log,
        launcher.graceful() as stop,
    ):
        # Not in data/model, which DVC empties before a run, and before one that goes on.
        kept = state.directory / "model"

        def keep(name: str, average: Method) -> None:
            if writer:
                save_method(kept / f"{name}.safetensors", average, params, header, codebook_KD)

        def watch(rows: list[dict[str, float]]) -> None:
            if writer:
                write_tsv(paths.METRICS / "train.tsv", rows)
                write_json(paths.METRICS / "train.json", rows[-1] | _reasons(rows[-1]))
                log(rows[-1])

        teacher, _ = train(
            method,
            split,
            heldout,
            params.train,
            steps=params.train_steps,
            seed=params.seed,
            state=state,
            stop=stop,
            micro_batch=paths.micro_batch(),
            keep=keep,
            watch=watch,
        )
        keep("model", teacher)
        if writer:
            replace_folder(kept, paths.MODEL.parent)
        state.finish()


def _reasons(row: dict[str, float]) -> dict[str, str]:
    """Why a number of `row` is null."""
    if math.isnan(row["heldout_loss"]):
        return {"heldout_loss_null": "no image is held out: tokenize.holdout is 0, or too small for so few images"}
    return {}


def main() -> int:
    """Run the stage as `python -m stages.train` does; gives the exit code."""
    return launcher.main("train", run, parallel=True)


if __name__ == "__main__":
    sys.exit(main())
