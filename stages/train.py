"""tokens, the method's knobs -> data/model (EMA weights) and metrics/train.tsv, embeddings.png, schedule.png."""

import sys

import torch

from stages import paths, runner
from vqlcmd import checkpoint, methods, network, plots, shards, streaming
from vqlcmd.config import load_params
from vqlcmd.distributed import device, rank
from vqlcmd.models import save_method
from vqlcmd.trainer import train

PARALLEL = True


def run() -> None:
    """Train the method that params.yaml names, from the start or from where the same run stopped."""
    if paths.compiles():
        network.compile_network()
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
    name = checkpoint.fingerprint(settings, header, checkpoint.sources(*paths.CODE))
    with (
        checkpoint.State(runner.state_root() / "train" / name, writer=rank() == 0) as state,
        runner.graceful() as stop,
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
            at_once=paths.images_at_once(),
        )
        if rank() == 0:
            save_method(paths.MODEL, teacher, params, header, codebook_KD)
            plots.write_curves(rows, paths.METRICS / "train.tsv")
            plots.noise_schedule(teacher.signal, params.method, paths.METRICS / "schedule.png")
            plots.embeddings(codebook_KD, teacher.table.detach().cpu(), paths.METRICS / "embeddings.png")
        state.finish()


if __name__ == "__main__":
    sys.exit(runner.main("train"))
