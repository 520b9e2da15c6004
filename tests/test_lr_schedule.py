"""One shape for three learning rates: each is bit for bit its own formula."""

import math

import pytest

from tests.factory import train_settings
from vqlcmd.evaluation.proxy_classifier import _rise_and_fall
from vqlcmd.lr_schedule import warmup_cosine
from vqlcmd.tokenizer_fit import fit
from vqlcmd.training.optimizer import learning_rate


def of_training(step: int, steps: int, warmup: int, final: float) -> float:
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(steps - warmup, 1)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def of_the_tokenizer(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / (fit.RAMP * steps + 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))


def of_the_proxy_classifier(progress: float) -> float:
    return progress / 0.2 if progress < 0.2 else 0.5 * (1 + math.cos(math.pi * (progress - 0.2) / 0.8))


@pytest.mark.parametrize(
    ("steps", "warmup", "final"), [(1700, 100, 0.1), (1200, 100, 0.1), (70, 4, 0.0), (9, 20, 0.3), (50, 0, 1.0)]
)
def test_training_follows_its_formula_bit_for_bit(steps: int, warmup: int, final: float) -> None:
    settings = train_settings(warmup=warmup, final_lr_ratio=final)
    for step in range(steps + 1):
        assert learning_rate(step, steps, settings) == of_training(step, steps, warmup, final), step


@pytest.mark.parametrize("steps", [1, 20, 600, 800])
def test_the_tokenizer_follows_its_formula_bit_for_bit(steps: int) -> None:
    for step in range(steps):
        assert fit.schedule(step, steps) == of_the_tokenizer(step, steps), step


@pytest.mark.parametrize("steps", [1, 20, 200, 1000])
def test_the_proxy_classifier_follows_its_formula_bit_for_bit(steps: int) -> None:
    for step in range(steps):
        assert _rise_and_fall((step + 1) / steps) == of_the_proxy_classifier((step + 1) / steps), step


def test_what_lies_beyond_the_ends_is_clamped() -> None:
    assert warmup_cosine(0.5, -1.0) == 0.5
    assert warmup_cosine(7.0, 0.0) == 1
    assert warmup_cosine(1.0, 4.0, final=0.25) == 0.25
