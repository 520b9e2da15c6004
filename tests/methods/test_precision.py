"""Work on speed changes no answer: 20 losses from fixed seeds stay what they were, and the two precisions agree."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.factory import CODES, METHODS, TOKENS, build, integers, made, train_settings
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.resume import State
from vqlcmd.tokens.shards import Split
from vqlcmd.training.loop import train

SPLIT = Split(integers(CODES, 40, TOKENS), integers(3, 40, seed=1), torch.arange(40))
# Losses of steps 1, 10 and 20 at commit e9ba459, from before any work on speed, float32 on an x86-64 CPU.
BEFORE = {
    "lcmd": (5.2493849, 2.948621, 1.8438873),
    "d3pm": (0.1199898, 0.3119712, 0.0801098),
    "vq_diffusion": (0.1517163, 0.3673966, 0.1831735),
    "maskgit": (2.8096523, 1.9705759, 1.8589331),
    "autoregressive": (2.8304365, 2.1380248, 1.9927016),
}


@pytest.mark.parametrize("name", METHODS)
def test_losses_of_twenty_steps_are_those_from_before_the_work_on_speed(tmp_path: Path, name: str) -> None:
    """Random numbers bit for bit, the rest up to the order of sums, which 20 steps of Adam make larger."""
    settings: dict[str, Any] = {"batch_size": 8, "log_every": 1, "save_every": 100}
    method = build(method=name, classes=3, train=settings)
    with State(tmp_path) as state:
        _, rows = train(method, SPLIT, SPLIT, train_settings(**settings), steps=20, seed=5, state=state)
    assert [rows[step - 1]["loss"] for step in (1, 10, 20)] == pytest.approx(BEFORE[name], rel=1e-4)


def terms_and_gradients(name: str, autocast: bool) -> tuple[dict[str, Tensor], Tensor]:
    """Means of the loss terms, and the gradients of their sum, one after the other."""
    rows = torch.arange(16)
    method, teacher = (made(name, network={"width": 32}, train={"batch_size": 16}) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        terms = method(integers(CODES, 16, TOKENS), integers(3, 16, seed=1), CounterRNG(7, "test", rows), teacher)
    means = {term: values.mean() for term, values in terms.items()}
    torch.stack(list(means.values())).sum().backward()
    gradients = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
    return {term: value.detach() for term, value in means.items()}, gradients


@pytest.mark.parametrize("name", METHODS)
def test_bf16_gives_the_terms_and_gradients_of_float32_within_its_own_precision(name: str) -> None:
    """8 bits are 0.4% a rounding: a term may be off by 2%, the gradient of all parameters by 10% of its length."""
    exact, gradients = terms_and_gradients(name, autocast=False)
    rounded, rounded_gradients = terms_and_gradients(name, autocast=True)
    assert any(not torch.equal(rounded[term], exact[term]) for term in exact), "nothing was rounded"
    for term, value in exact.items():
        assert rounded[term].dtype == torch.float32
        assert float(rounded[term]) == pytest.approx(float(value), rel=0.02), term
    assert float((rounded_gradients - gradients).norm() / gradients.norm()) < 0.1
