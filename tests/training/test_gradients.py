"""Gradients of the loss terms on the embedding table: what they are, and that watching them changes nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.factory import CODES, METHODS, TOKENS, build, integers, made, train_settings
from tests.training.test_loop import SPLIT, STEPS
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.resume import State
from vqlcmd.training.gradients import table_gradients
from vqlcmd.training.loop import train


def watched(student: Any, tokens: Tensor, label: Tensor | None = None, *, at_once: int = 4) -> dict[str, float]:
    return table_gradients(student, student, tokens, label, seed=0, batch_size=4, at_once=at_once)


def test_they_are_those_of_the_weighted_terms_of_one_batch() -> None:
    student, label = made("lcmd"), integers(3, 4)
    found = watched(student, integers(CODES, 4, TOKENS), label)
    terms = student(integers(CODES, 4, TOKENS), label, CounterRNG(0, "table_gradients", torch.arange(4)), student)
    for name, weight in student.weights.items():
        student.zero_grad()
        (weight * terms[name].mean()).backward(retain_graph=True)
        vectors = [(each, each.grad) for each in student.embedding.parameters()]
        dot = sum(float((each.detach() * grad).sum()) for each, grad in vectors)
        norm, size = (float(torch.cat([v[side].flatten() for v in vectors]).detach().norm()) for side in (1, 0))
        assert found[f"table_grad_{name}"] == pytest.approx(norm, rel=1e-4)
        assert found[f"table_grad_cos_{name}"] == pytest.approx(dot / norm / size, abs=1e-5)


class Ignorant(nn.Module):
    """All codes are alike to it."""

    def forward(self, z_BND: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.zeros(*z_BND.shape[:2], CODES)


def test_the_diffusion_term_of_a_network_that_knows_nothing_is_a_pull_to_the_mean() -> None:
    """With psi_hat the mean e of all rows, L_diff = mean_k |e_k - e|^2, whose gradient is 2 (e_k - e) / K."""
    student = build(lambda_rec=0.0, lambda_diff=0.3, lambda_cm=0.0, lambda_ce=0.0, drop=0.0)
    student.network = Ignorant()
    table, mask = student.embedding.weight.detach(), student.embedding.mask.detach()
    table -= table.mean(dim=0)
    found = watched(student, torch.arange(CODES).repeat(2).view(4, -1))
    assert found["table_grad_diff"] == pytest.approx(0.3 * 2 / CODES * float(table.norm()), rel=1e-4)
    share = float(table.norm()) / float(torch.cat([table, mask[None]]).norm())
    assert found["table_grad_cos_diff"] == pytest.approx(share, rel=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_they_do_not_depend_on_how_many_images_go_through_at_once(name: str) -> None:
    student, tokens, label = made(name), integers(CODES, 8, TOKENS), integers(3, 8)
    whole = watched(student, tokens, label)
    learned = student.weights if list(student.embedding_parameters()) else {}
    assert whole.keys() == {f"table_grad_{kind}{term}" for term in learned for kind in ("", "cos_")}
    assert watched(student, tokens, label, at_once=3) == pytest.approx(whole, rel=1e-3, abs=1e-6)


def test_a_frozen_table_has_none() -> None:
    student = build()
    student.embedding.requires_grad_(False)
    assert watched(student, integers(CODES, 4, TOKENS)) == {}


@pytest.mark.parametrize("name", METHODS)
def test_watching_them_changes_no_other_number(tmp_path: Path, name: str) -> None:
    """It draws from no global random state, and leaves gradients, method and average as they are."""
    found = []
    for on in (False, True):
        with State(tmp_path / str(on)) as state:
            method = build(method=name, classes=3, network={"dropout": 0.3})
            settings = train_settings(table_gradients=on)
            teacher, rows = train(method, SPLIT, SPLIT, settings, steps=STEPS, seed=5, state=state)
        watching = on and any(True for _ in method.embedding_parameters())
        assert any(column.startswith("table_grad_") for column in rows[0]) == watching
        found.append(
            (
                teacher.state_dict(),
                [{key: row[key] for key in row if not key.startswith("table_grad_")} for row in rows],
            )
        )
    assert found[0][1] == found[1][1]
    assert all(torch.equal(found[0][0][key], found[1][0][key]) for key in found[0][0])
