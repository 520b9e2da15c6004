"""tokens, the method's knobs -> data/model (EMA weights) and metrics/train.tsv."""

import sys

import torch

from vqlcmd import methods
from vqlcmd.diffusion import transformer
from vqlcmd.methods import save_method
from vqlcmd.params import load_params
from vqlcmd.runtime import launcher, paths, pipeline, resume
from vqlcmd.runtime.distributed import barrier, device, rank
from vqlcmd.runtime.files import write_tsv
from vqlcmd.tokens import shards, streaming
from vqlcmd.training.loop import train


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
    del settings["train"]["save_every"]
    this = resume.Run("train", settings, header, pipeline.code(params.model_dump(), "train"))
    with resume.State.of(this, writer=rank() == 0) as state, launcher.graceful() as stop:
        barrier()
        teacher, rows = train(
            method,
            split,
            heldout,
            params.train,
            steps=params.train_steps,
            seed=params.seed,
            state=state,
            stop=stop,
            micro_batch=paths.micro_batch(),
        )
        if rank() == 0:
            save_method(paths.MODEL, teacher, params, header, codebook_KD, state.edits)
            write_tsv(paths.METRICS / "train.tsv", rows)
        state.finish()


def main() -> int:
    """Run the stage as `python -m stages.train` does; gives the exit code."""
    return launcher.main("train", run, parallel=True)


if __name__ == "__main__":
    sys.exit(main())
