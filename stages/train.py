"""tokens, the method's parameters -> data/model (EMA weights, snapshots), metrics/train.tsv and metrics/train.json."""

import math
import sys
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor

from vqlcmd import methods
from vqlcmd.costs import memory
from vqlcmd.diffusion import transformer
from vqlcmd.diffusion.method import Method
from vqlcmd.live import Pictures, columns
from vqlcmd.loggers import LOGGERS
from vqlcmd.methods import load_method, read_params, save_method
from vqlcmd.params import RunParams, Train, load_run
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import launcher, paths, pipeline, resume
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.runtime.distributed import barrier, device, rank, world
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import replace_folder, sha256, write_json, write_tsv
from vqlcmd.tokens import shards, streaming
from vqlcmd.training.loop import train

NOT_RESULTS = ("save_every", "sample_every", "logger")
"""Keys of the section `train` that say how a run is saved and logged: no result depends on them."""
ROWS = 4
"""Rows in the grid of samples that is drawn during training. These are the first samples of the stage `sample`, with
the same random numbers."""

SHAPE = ("method", "s", "weighting", "self_conditioning", "embedding", "embedding_dim", "schedule", "network")
"""Keys that must be the same for a student and its teacher, since the student starts from the teacher's weights."""


def run() -> None:
    """Train the method that params.yaml names, from the start or from the saved state of the same run."""
    if paths.compiles():
        transformer.compile_network()
    params = load_run()
    header = shards.read_header(paths.TOKENS)
    codebook_KD = shards.read_codebook(paths.TOKENS)
    split = streaming.open_split(paths.TOKENS, "train", device(), paths.token_memory())
    if not len(split):
        raise DataError(
            f"{paths.TOKENS} holds no {params.unit} for training: lower tokenize.holdout and run `dvc repro`"
        )
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
    for key in NOT_RESULTS:
        del settings["train"][key]
    digest = None
    if params.distill.teacher is not None:
        frozen, digest = _teacher(params, params.distill.teacher, header, classes)
        method.learn_from(frozen, params.distill.steps)
        settings["distill"]["sha256"] = digest
    this = resume.Run("train", settings, header, pipeline.code(params.model_dump(), "train"))
    writer = rank() == 0
    with (
        resume.State.of(this, writer=writer) as state,
        LOGGERS[params.train.logger if writer else "none"](resume.state_root() / "logs" / this.name, settings) as log,
        launcher.graceful() as stop,
    ):
        # Not in data/model, which DVC empties before every run, also before a resumed one.
        kept = state.directory / "model"

        def keep(name: str, average: Method) -> None:
            if writer:
                save_method(kept / f"{name}.safetensors", average, params, header, codebook_KD, state.edits, digest)

        def watch(rows: list[dict[str, float]]) -> None:
            if writer:
                write_tsv(paths.METRICS / "train.tsv", rows)
                write_json(paths.METRICS / "train.json", rows[-1] | _best(rows) | _reasons(rows[-1]))
                log.row(rows[-1])

        album = resume.state_root() / "logs" / f"train-{this.name}"
        pictures = Pictures(params.domain, header, codebook_KD, album, log)

        def show(step: int, average: Method) -> None:
            if writer:
                tokens, label = _drawn(params, average, classes)
                pictures.add(step, tokens, label, average.table)

        barrier()
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
            show=show,
            unit=params.unit,
        )
        keep("model", teacher)
        if writer:
            _check_kept(kept, params.train, apart=len(heldout) > 0)
            replace_folder(kept, paths.MODEL.parent)
        state.finish()


def _teacher(params: RunParams, folder: str, header: dict[str, Any], classes: int) -> tuple[Method, str]:
    """The frozen model in `distill.teacher`, and its file's SHA-256. DataError or ConfigError if it does not fit."""
    path = paths.main_checkout() / Path(folder).expanduser() / paths.MODEL.name
    if not path.is_file():
        raise ConfigError(f"distill.teacher is {folder}, but {path} is no file: copy a finished data/model there")
    if path.resolve() == (paths.main_checkout() / paths.MODEL).resolve():
        raise ConfigError(f"distill.teacher is {folder}, which this stage writes: name a copy elsewhere")
    digest = sha256(path)
    if params.distill.sha256 not in (None, digest):
        raise DataError(
            f"{path} has SHA-256 {digest}, but distill.sha256 is {params.distill.sha256}: "
            "get the file again, or correct it"
        )
    teacher, about = load_method(path, device())
    belongs.check_belong(belongs.model(path, about), belongs.tokens(paths.TOKENS, header))
    its = read_params(about)
    for key in (each for each in SHAPE if hasattr(its, each)):
        if getattr(its, key) != getattr(params, key):
            raise ConfigError(
                f"{key} is {_said(getattr(params, key))}, and {_said(getattr(its, key))} of the teacher {path}, "
                "whose weights the student begins with: make them the same"
            )
    if len(about["class_names"]) != classes:
        raise ConfigError(
            f"{path} has {len(about['class_names'])} classes, and train.use_classes makes it {classes}: change that"
        )
    return teacher, digest


def _said(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


@torch.no_grad()
def _drawn(params: RunParams, average: Method, classes: int) -> tuple[Tensor, Tensor | None]:
    """Tokens (n, N) of the first samples, and their classes (n,) where there are any."""
    rows = torch.arange(ROWS * columns(classes), device=device())
    label = rows % classes if classes else None
    parts = [
        average.sample(
            None if label is None else label[part], CounterRNG(params.seed, "sample", part), params.sampling()
        )
        for part in rows.split(params.sample.batch_size)
    ]
    return torch.cat(parts), label


def _best(rows: list[dict[str, float]]) -> dict[str, float]:
    """{key: value} of the lowest held-out loss so far and its step; {} without a held-out loss."""
    known = [row for row in rows if not math.isnan(row["heldout_loss"])]
    if not known:
        return {}
    best = min(known, key=lambda row: row["heldout_loss"])
    return {"best_heldout_loss": best["heldout_loss"], "best_step": best["step"]}


def _check_kept(kept: Path, settings: Train, *, apart: bool) -> None:
    """Remove files that only an earlier run with other parameters asked for, and print which wanted ones are missing.

    This run may have been resumed from such a run.
    """
    wanted = set(settings.kept) - (set() if apart else {"best"})
    files = {path.relative_to(kept).with_suffix("").as_posix(): path for path in kept.rglob("*.safetensors")}
    for name in files.keys() - wanted:
        files[name].unlink()
    for name in sorted(wanted - files.keys()):
        print(f"train: no {name}.safetensors, since that step was over when the run was resumed", file=sys.stderr)


def _reasons(row: dict[str, float]) -> dict[str, str]:
    """{key: reason} for each number of `row` that is null."""
    if math.isnan(row["heldout_loss"]):
        return {"heldout_loss_null": shards.NONE_HELD_OUT}
    return {}


def main() -> int:
    """Run the stage as `python -m stages.train` does; returns the exit code."""
    return launcher.main("train", run, parallel=True)


if __name__ == "__main__":
    sys.exit(main())
