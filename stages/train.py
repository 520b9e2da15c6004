"""tokens, the method's knobs -> data/model (EMA weights) and metrics/train.tsv."""

import sys

import torch

from vqlcmd import methods
from vqlcmd.costs import memory
from vqlcmd.diffusion import transformer
from vqlcmd.methods import save_method
from vqlcmd.params import load_params
from vqlcmd.runtime import launcher, paths, resume
from vqlcmd.runtime.distributed import device, rank, world
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
    share = params.train.batch_size // world()
    memory.require_training(
        memory.method_costs(
            params.model_part(),
            params.sampling(),
            tokens=header["tokens"],
            codes=len(codebook_KD),
            codebook_dim=codebook_KD.shape[1],
            classes=classes,
        ),
        min(paths.micro_batch() or share, share),
        device(),
    )
    torch.manual_seed(params.seed)
    method = methods.build(params, codebook_KD, header["tokens"], classes).to(device())
    method.check(params.sampling())

    settings = params.model_part().model_dump(mode="json")
    del settings["train"]["save_every"]
    name = resume.fingerprint(settings, header, resume.sources(*paths.CODE))
    with (
        resume.State(launcher.state_root() / "train" / name, writer=rank() == 0) as state,
        launcher.graceful() as stop,
    ):
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
            save_method(paths.MODEL, teacher, params, header, codebook_KD)
            write_tsv(paths.METRICS / "train.tsv", rows)
        state.finish()


def main() -> int:
    """Run the stage as `python -m stages.train` does; gives the exit code."""
    return launcher.main("train", run, parallel=True)


if __name__ == "__main__":
    sys.exit(main())
