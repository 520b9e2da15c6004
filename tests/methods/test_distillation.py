"""Consistency distillation of VQ-LCMD, on the distribution of test_toy.py with its exact posterior as the teacher."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.factory import CODES, METHODS, TOKENS, build, integers, made, sampling, train_settings
from tests.methods.test_toy import SHIFT, TABLE, K, N, drawn, exact_tokens, method, number
from vqlcmd.diffusion.distillation import Guide, consistency
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.runtime.resume import State
from vqlcmd.tokens.shards import Split
from vqlcmd.training.loop import train

STEPS = 8
X, LABEL = integers(CODES, 4, TOKENS), integers(3, 4, seed=1)
NOISE = CounterRNG(7, "test", torch.arange(4))


def guide(teacher: Any) -> Guide:
    times = teacher.weighting.steps(torch.linspace(0, 1, STEPS + 1, dtype=torch.float64))
    return Guide(teacher.network, teacher.embedding, teacher.psi_hat, teacher.schedule, times)


class PathEnd(nn.Module):
    """The guide's answer at the clean end of its sampler's path through z."""

    def __init__(self, followed: Guide):
        super().__init__()
        self.guide = followed

    def forward(self, z_BND: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        at = torch.searchsorted(self.guide.times, t)
        for step in range(STEPS, 0, -1):
            moved = self.guide.earlier(z_BND, label, torch.full_like(at, step))
            z_BND = torch.where((at >= step)[:, None, None], moved, z_BND)
        return self.guide.network(z_BND, self.guide.times[:1].expand(len(at)), label)


def test_the_end_of_the_teachers_path_is_what_the_loss_is_0_at_and_the_teachers_own_answer_is_not() -> None:
    teacher = method()
    followed, tokens = guide(teacher), exact_tokens(2000)
    rng = CounterRNG(0, "toy", torch.arange(len(tokens)))
    u = rng.uniform("time")
    end = PathEnd(followed)
    assert float(consistency(followed, end, end, tokens, None, u, rng).abs().max()) < 1e-5
    own = consistency(followed, teacher.network, teacher.network, tokens, None, u, rng)
    assert float(own.mean()) > 0.03
    # One step from the clean end the target is the teacher's, so that no other answer agrees with itself.
    first = torch.full_like(u, 0.5 / STEPS)

    def certain(z_BND: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return torch.eye(K)[0].mul(20).expand(len(z_BND), N, -1).clone()

    assert float(consistency(followed, certain, certain, tokens, None, first, rng).mean()) > 1
    assert float(consistency(followed, certain, certain, tokens, None, torch.full_like(u, 0.9), rng).mean()) < 1e-5


def variation(one: Tensor, other: Tensor) -> float:
    shares = [torch.bincount(number(each), minlength=K**N).double() / len(each) for each in (one, other)]
    return 0.5 * float((shares[0] - shares[1]).abs().sum())


def test_a_student_draws_in_one_and_two_calls_what_its_teacher_draws_in_many(tmp_path: Path) -> None:
    """Measured: total variation 0.12 and 0.13; the teacher in one and two calls of its own 0.22 and 0.80 (DDIM).

    And 0.79 of the student's samples of one call are token for token those of the teacher from the same noise.
    """
    teacher = method()
    ends = {"name": "cosine", "log_snr_min": -12.0, "log_snr_max": 6.0}
    sizes: dict[str, Any] = {"tokens": N, "codes": K, "embedding_dim": 2, "network": {"width": 32}}
    student = build(**sizes, s=SHIFT, schedule=ends, train={"batch_size": 64})
    student.embedding.weight.data.copy_(TABLE)
    student.embedding.requires_grad_(False)
    student.guide, student.weights = guide(teacher), {"cd": 1.0}
    tokens = exact_tokens(20_000)
    split = Split(tokens.int(), torch.zeros(len(tokens), dtype=torch.int64), torch.arange(len(tokens)))
    settings = train_settings(batch_size=64, learning_rate=3e-3, warmup=50, ema=0.9, log_every=600, save_every=600)
    with State(tmp_path) as state:
        average: Any = train(student, split, split, settings, steps=600, seed=0, state=state)[0]
    many = drawn(teacher, 4000, "ddim", STEPS)
    one = drawn(average, 4000, "consistency", 1)
    assert float((one == many).all(dim=1).float().mean()) > 0.7
    assert variation(one, many) < 0.16
    assert variation(drawn(teacher, 4000, "consistency", 1), many) > 0.2
    assert variation(drawn(average, 4000, "consistency", 2), many) < 0.18
    assert variation(drawn(teacher, 4000, "ddim", 1), many) > 0.7


def test_a_student_begins_as_its_teacher_and_keeps_the_table() -> None:
    teacher, student = made("lcmd").requires_grad_(False), build(method="lcmd", classes=3, seed=1)
    names = set(student.state_dict())
    student.learn_from(teacher, 5)
    assert set(student.state_dict()) == names
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in teacher.state_dict().items())
    average = copy.deepcopy(student)
    assert average.guide is student.guide
    terms = student(X, LABEL, NOISE, average)
    assert set(terms) == set(student.weights) == {"cd"}
    assert terms["cd"].shape == (4,)
    terms["cd"].sum().backward()
    without = {name for name, parameter in student.named_parameters() if parameter.grad is None}
    assert without == {name for name, _ in student.named_parameters() if name.startswith("embedding.")}
    assert all(parameter.grad is None for each in (teacher, average) for parameter in each.parameters())


@pytest.mark.parametrize(
    "settings", [{"method": name} for name in METHODS if name != "lcmd"] + [{"self_conditioning": 0.5}]
)
def test_what_cannot_be_distilled_says_so_in_one_line(settings: dict[str, Any]) -> None:
    teacher, student = (build(**settings) for _ in range(2))
    with pytest.raises(ConfigError, match=r"cannot be distilled.*: set distill\.teacher to null") as error:
        student.learn_from(teacher, 5)
    assert "\n" not in str(error.value)


def test_the_consistency_sampler_reads_tokens_off_where_it_last_looked() -> None:
    """One step is one look at noise; of two, the second one is at new noise on top of the first one's answer."""
    model, times = made("lcmd"), []
    model.network.register_forward_pre_hook(lambda _, args: times.append(float(args[1][0])))
    for steps in (1, 2):
        times.clear()
        model.sample(LABEL, NOISE, sampling(steps, "consistency"))
        assert len(times) == model.nfe(sampling(steps, "consistency")) == steps
        halves = torch.linspace(1, 0, steps + 1, dtype=torch.float64)[:-1]
        assert times == pytest.approx(model.schedule.between(halves).tolist())
