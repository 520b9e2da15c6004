"""Values that nobody meant, by a fixed seed: accepted, with costs that can be counted, or refused in one line."""

import random
import time
from typing import Any

import pytest
import torch

from tests.factory import ROOT
from vqlcmd.costs import available, fitting, memory
from vqlcmd.costs.plan import Data, plan
from vqlcmd.experiments.table import differences, overridden
from vqlcmd.params import Params, check_params
from vqlcmd.params.errors import MOST_LINES
from vqlcmd.pretrained.described import architecture
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.yaml_file import read_yaml

BASE = read_yaml(ROOT / "presets" / "digits.yaml")
ROUNDS = 2000
SECONDS_EACH = 20.0
CPU = torch.device("cpu")
SHAPING = {"method", "embedding", "embedding_dim", "network", "discrete", "schedule", "images", "vqgan", "evaluate"}
SHAPING |= {"sample_steps", "sampler", "guidance", "dropping", "consistency_step", "consistency_gradient"}
"""What costs follow from but by a multiplication: only where one of these is another are they counted again."""
WHOLE = [0, 1, 2, 3, 7, 64, 4096, 65_536, 65_537, 10**6, 10**9, 10**9 + 1, 2**31, 2**63, 10**40, -1, -(10**40)]
BROKEN = [1e-300, 1e-9, 0.5, 1.0, 1e3, 1e6, 1e38, 1e308, -1e308, float("inf"), float("nan"), 1e16]
OTHER = [None, True, "", "x", "1e3", [], [1], [10**9], {}, {"a": 1}, "\x1b[2J", "a" * 10**5, [[[]]], [0.5] * 2000]


def mutated(random_: random.Random) -> dict[str, Any]:
    """The demo's parameters with one to three values replaced, most of them by numbers where numbers stood."""
    keys = sorted(differences({}, BASE))
    changes = {}
    for key in random_.sample(keys, random_.choice([1, 1, 2, 3])):
        pool = random_.choice([WHOLE, WHOLE, BROKEN, OTHER])
        changes[key] = random_.choice(pool)
    return overridden(BASE, changes)


def counted(params: Params) -> None:
    """What the stages compare with the machine, and `vqlcmd plan` prints."""
    found = plan(params, Data(1797, 10))
    found.work()
    found.disk()
    found.state()
    found.evaluation_memory()
    memory.require_training(found.costs, params.train.batch_size, CPU)
    memory.require_sampling(found.costs, params.sample.batch_size, CPU)
    memory.require_bound(found.costs, params.bound.batch_size, CPU)
    if params.vqgan.checkpoint is None:
        fitting.require_fit(
            architecture(params.vqgan, params.images.size), params.vqgan.fit, params.images.size, 1797, CPU
        )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_mutated_parameters_are_accepted_and_counted_or_refused_in_one_line_each(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(available, "free_memory", lambda device: 8 * 10**9)
    random_, accepted, refused = random.Random(seed), 0, 0
    for _ in range(ROUNDS // 10):
        values, start = mutated(random_), time.process_time()
        try:
            params = check_params(values, "params.yaml")
            if {key.partition(".")[0] for key in differences(BASE, values)} & SHAPING:
                counted(params)
            accepted += 1
        except ConfigError as error:
            lines = str(error).splitlines()
            assert 1 <= len(lines) <= MOST_LINES + 1, lines
            assert all(line.isprintable() and len(line) < 600 for line in lines), lines
            refused += 1
        assert time.process_time() - start < SECONDS_EACH, differences(BASE, values)
    assert accepted > 5
    assert refused > 20
