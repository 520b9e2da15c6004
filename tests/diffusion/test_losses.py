"""The terms, against PyTorch's distributions and by hand."""

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from tests.factory import integers, normal
from vqlcmd.diffusion import losses

B, N, K, D = 3, 4, 5, 6
P, Q = normal(B, N, K, seed=1, dtype=torch.float64), normal(B, N, K, seed=2, dtype=torch.float64)
TOKENS = integers(K, B, N)


def test_consistency_is_the_kl_from_teacher_to_student_averaged_over_tokens() -> None:
    exact = kl_divergence(Categorical(logits=P), Categorical(logits=Q)).mean(dim=1)
    assert torch.allclose(losses.consistency(P, Q), exact, rtol=1e-12)
    # It is no symmetric distance: the order of its arguments matters.
    assert not torch.allclose(losses.consistency(Q, P), exact, rtol=1e-3)


def test_consistency_is_zero_if_and_only_if_the_distributions_are_equal() -> None:
    assert losses.consistency(P, P + normal(B, N, 1, dtype=torch.float64)).abs().max() < 1e-14
    nudged = P.clone()
    nudged[:, 0, 0] += 1e-3
    assert (losses.consistency(P, nudged) > 1e-9).all()


def test_consistency_is_never_negative() -> None:
    p, q = normal(200, N, K, seed=3, dtype=torch.float64), normal(200, N, K, seed=4, dtype=torch.float64)
    for distance in (1e-4, 1.0, 30.0):
        assert (losses.consistency(p, p + distance * q) > 0).all()


def test_consistency_sends_no_gradient_to_the_teacher() -> None:
    teacher, student = P.clone().requires_grad_(), Q.clone().requires_grad_()
    losses.consistency(teacher, student).sum().backward()
    assert teacher.grad is None
    # d KL / d logits of q is q - p, over N tokens.
    assert student.grad is not None
    assert torch.allclose(student.grad, (Q.softmax(dim=2) - P.softmax(dim=2)) / N, atol=1e-14)


def test_consistency_stays_finite_for_certain_teachers_and_students() -> None:
    sure = torch.full((1, 1, K), -200.0)
    sure[..., 0] = 200.0
    assert float(losses.consistency(sure, sure)) == 0
    assert losses.consistency(sure, sure.flip(2)).isfinite().all()


def test_the_squared_error_is_summed_over_size_and_averaged_over_tokens() -> None:
    psi, psi_hat = normal(B, N, D, seed=5), normal(B, N, D, seed=6)
    by_hand = [
        sum((float(psi[b, n, d]) - float(psi_hat[b, n, d])) ** 2 for n in range(N) for d in range(D)) / N
        for b in range(B)
    ]
    assert losses.squared_error(psi, psi_hat).tolist() == pytest.approx(by_hand, rel=1e-6)


def test_the_squared_error_moves_both_the_target_and_the_prediction() -> None:
    """Gradients flow through Psi(x): the embeddings are learned."""
    psi, psi_hat = normal(B, N, D, seed=5).requires_grad_(), normal(B, N, D, seed=6).requires_grad_()
    losses.squared_error(psi, psi_hat).sum().backward()
    assert psi.grad is not None
    assert psi_hat.grad is not None
    assert torch.allclose(psi.grad, -psi_hat.grad)
    assert torch.allclose(psi.grad, 2 * (psi - psi_hat).detach() / N)


def test_the_cross_entropy_is_per_image_and_averaged_over_tokens() -> None:
    exact = -Categorical(logits=P).log_prob(TOKENS).mean(dim=1)
    assert torch.allclose(losses.cross_entropy(P, TOKENS), exact, rtol=1e-12)
    assert losses.cross_entropy(torch.zeros(B, N, K), TOKENS).tolist() == pytest.approx([math.log(K)] * B)
