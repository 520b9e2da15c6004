"""The paper's presets with their whole networks on a CPU: two steps of training, one image in two steps, and memory.

`python -m tests.costs.test_presets_full` prints the table of docs/scaling.md.
"""

import hashlib
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.measure import apart, gigabytes, memory, now, peak_memory
from tests.factory import codebook, integers
from tests.repository.test_presets import PAPER, preset
from vqlcmd import methods
from vqlcmd.cli.plan import PUBLISHED
from vqlcmd.costs.plan import Data, plan
from vqlcmd.generator import Generator
from vqlcmd.params import Params, load_params
from vqlcmd.pretrained.described import architecture
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.resume import State
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokens.shards import Split
from vqlcmd.training.loop import train

STEPS = 2
HEAD_ROOM = 1.3
"""Of the bound on memory over the plan, which counts neither temporary buffers nor copies of the weights in bf16."""


def planned(params: Params) -> int:
    """Bytes that the plan gives for training at batch 1 on a CPU, without a best state."""
    params = params.model_copy(update={"train": params.train.model_copy(update={"keep_best": False})})
    taken = plan(params, Data(*PUBLISHED[params.dataset])).memory(on_cpu=True)
    return taken.fixed + taken.per_image


def run(name: str) -> dict[str, float]:
    """Train a preset's network for STEPS at batch 1 on random tokens, draw an image, and tell what came of it.

    Everything is the preset's but steps, batch, the best state and warm-up: at the first of 10,000 learning rates a
    gain of 1 would not move in float32. Memory in bytes beyond what the process held when all modules were imported.
    """
    params, (_, classes) = load_params(preset(name)), PUBLISHED[name]
    shape, how = architecture(params.vqgan, params.images.size), replace(params.sampling(), steps=STEPS)
    classes = classes if params.train.use_classes else 0
    tokens = integers(shape.n_embed, 4, shape.grid**2)
    split = Split(tokens, integers(max(classes, 1), 4, seed=1), torch.arange(4))
    settings = params.train.model_copy(update={"batch_size": 1, "warmup": 0, "keep_best": False})
    held, start = memory(), now()
    torch.manual_seed(0)
    method = methods.build(params.model_part(), codebook(shape.n_embed, shape.embed_dim), shape.grid**2, classes)
    fresh = _digests(method)
    with tempfile.TemporaryDirectory() as folder, State(Path(folder) / "state") as state:
        teacher, rows = train(method, split, split, settings, steps=STEPS, seed=0, state=state)
    trained, peak = now(), peak_memory() - held
    moved, averaged = _digests(method), _digests(teacher)

    label = torch.tensor([classes - 1]) if classes else None
    drawn = teacher.sample(label, CounterRNG(0, "sample", torch.arange(1)), how)
    tokenizer = vqgan.VQGAN(shape).eval().requires_grad_(False)
    about = {
        "params": params.model_part().model_dump(),
        "sampling": {**vars(how), "batch_size": 1},
        "class_names": [str(number) for number in range(classes)],
    }
    generator = Generator(teacher, tokenizer, about, torch.device("cpu"))
    asked = [classes - 1] if classes else 1
    images = generator.sample(asked)
    return {
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "training": peak,
        "everything": peak_memory() - held,
        "seconds": trained - start,
        "sampling": now() - trained,
        "rows": len(rows),
        "finite": all(map(math.isfinite, rows[-1].values())),
        "unmoved": sum(moved[tensor] == fresh[tensor] for tensor in fresh),
        "unaveraged": sum(averaged[tensor] in (moved[tensor], fresh[tensor]) for tensor in fresh),
        "tokens": drawn.numel(),
        "lowest": int(drawn.min()),
        "highest": int(drawn.max()),
        "kinds": len(drawn.unique()),
        "pixels": images.numel(),
        "levels": len(images.unique()),
    }


def _digests(module: nn.Module) -> dict[str, str]:
    """Of each parameter: a copy would be memory that training does not take."""
    held = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    return {name: hashlib.sha256(numbers.data).hexdigest() for name, numbers in held.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAPER)
def test_a_whole_preset_trains_and_samples_on_a_cpu_in_little_more_memory_than_planned(name: str) -> None:
    params = load_params(preset(name))
    found = apart(run, name)
    assert found["rows"] == 1
    assert found["finite"]
    assert found["unmoved"] == found["unaveraged"] == 0
    assert found["tokens"] == 256
    assert 0 <= found["lowest"] < found["highest"] < params.vqgan.n_embed
    assert found["pixels"] == 3 * params.images.size**2
    assert found["levels"] > 1
    assert found["everything"] < HEAD_ROOM * planned(params), found


if __name__ == "__main__":
    print("| preset | parameters | planned | peak: training | peak: with sampling | seconds: training | sampling |")
    print("|---|---|---|---|---|---|---|")
    for each in sys.argv[1:] or PAPER:
        found = apart(run, each)
        sizes = map(gigabytes, (planned(load_params(preset(each))), found["training"], found["everything"]))
        print(f"| {each} | {found['parameters']:,} | {' | '.join(sizes)} ", end="")
        print(f"| {found['seconds']:.0f} | {found['sampling']:.0f} |", flush=True)
