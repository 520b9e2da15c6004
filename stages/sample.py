"""model -> data/samples (token shards)."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from vqlcmd.costs import memory
from vqlcmd.diffusion import transformer
from vqlcmd.diffusion.method import Method
from vqlcmd.methods import load_method
from vqlcmd.params import ModelParams, Params, load_params
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import launcher, paths, resume
from vqlcmd.runtime.distributed import any_rank, barrier, device, rank, world
from vqlcmd.runtime.errors import ConfigError, DataError, Interrupted
from vqlcmd.runtime.files import atomic_write, sha256
from vqlcmd.runtime.progress import Progress
from vqlcmd.tokens import shards


def run() -> None:
    """Draw `sample.count` images' tokens: image i has class i mod C and a stream of random numbers of its own."""
    if paths.compiles():
        # Its mode for one shape again and again: CUDA graphs, which start all kernels of a pass at once.
        transformer.compile_network("reduce-overhead")
    params = load_params()
    method, about = load_method(paths.MODEL, device())
    classes = len(about["class_names"])
    if params.guidance and not classes:
        raise ConfigError(f"guidance is {params.guidance:g}, which needs classes, and this model has none: set it to 0")
    memory.require_sampling(
        memory.method_costs(
            ModelParams.model_validate_json(json.dumps(about["params"]), strict=False),
            params.sampling(),
            tokens=about["tokens"],
            codes=about["codes"],
            codebook_dim=about["params"]["embedding_dim"],
            classes=classes,
        ),
        min(params.sample.batch_size, params.sample.count),
        device(),
    )
    settings = params.model_dump(mode="json", include={"seed", "sampler", "sample_steps", "guidance", "sample"})
    name = resume.fingerprint(settings, sha256(paths.MODEL), resume.sources(*paths.CODE))
    with resume.State(launcher.state_root() / "sample" / name, writer=rank() == 0) as state:
        barrier()
        _draw(params, method, classes, state.directory)
        if rank() == 0:
            missing = [path for path in _batches(state.directory, params) if not path.exists()]
            if missing:
                raise DataError(
                    f"{missing[0]}, which another process wrote, is not there: "
                    "VQLCMD_STATE must be a folder that all machines share"
                )
            index = torch.arange(params.sample.count)
            labels = index % classes if classes else torch.zeros_like(index)
            batches = [np.load(path) for path in _batches(state.directory, params)]
            tokens = torch.from_numpy(np.concatenate(batches).astype(np.int32))
            header = {
                "tokens": about["tokens"],
                "codes": about["codes"],
                "classes": about["class_names"],
                "parameters": sum(parameter.numel() for parameter in method.parameters()),
                "steps": method.steps(params.sampling()),
                "nfe": method.nfe(params.sampling()),
                "vqgan_digest": about["vqgan_digest"],
                **settings,
            }
            samples = {"samples": shards.Split(tokens, labels, index)}
            shards.write_shards(paths.SAMPLES, samples, header, params.sample.count)
        state.finish()


def _batches(directory: Path, params: Params) -> list[Path]:
    return [directory / f"{start:09}.npy" for start in range(0, params.sample.count, params.sample.batch_size)]


def _draw(params: Params, method: Method, classes: int, directory: Path) -> None:
    """Write each batch's tokens into a file of its own, so that an interrupted run goes on where it stopped."""
    waiting = _batches(directory, params)
    rounds = range(0, len(waiting), world())
    with launcher.graceful() as stop, Progress("sample", params.sample.count, quiet=rank() > 0) as progress:
        for first in rounds:
            number = first + rank()
            start = number * params.sample.batch_size
            rows = torch.arange(start, start + params.sample.batch_size, device=device())
            rows = rows[rows < params.sample.count]
            # Every process passes here equally often, with or without a batch of its own: the group stays in step.
            if number < len(waiting) and not waiting[number].exists():
                label = rows % classes if classes else None
                tokens = method.sample(label, CounterRNG(params.seed, "sample", rows), params.sampling())
                with atomic_write(waiting[number]) as side:
                    np.save(side, tokens.cpu().numpy().astype(np.uint16))
            done = min((first + world()) * params.sample.batch_size, params.sample.count)
            progress.update(done, len(rows) * world())
            if any_rank(stop()) and done < params.sample.count:
                raise Interrupted(
                    f"stopped after {done} of {params.sample.count} images; the same command goes on from there"
                )
    barrier()


def main() -> int:
    """Run the stage as `python -m stages.sample` does; gives the exit code."""
    return launcher.main("sample", run, parallel=True)


if __name__ == "__main__":
    sys.exit(main())
