"""The loss terms: pure, per image, unweighted. Section 4 of docs/method.md.

Shapes: B images, N tokens, D embedding size, K codes.
"""

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits_BNK: Tensor, tokens_BN: Tensor) -> Tensor:
    """-log P(x), averaged over tokens: (B,), nats. L_rec at the clean end of the schedule, L_ce at any time."""
    # Flattened to rows: over a transposed tensor (B, K, N) the softmax takes twice as long.
    nats = F.cross_entropy(logits_BNK.flatten(0, 1), tokens_BN.flatten(), reduction="none")
    return nats.view_as(tokens_BN).mean(dim=1)


def squared_error(psi_BND: Tensor, psi_hat_BND: Tensor) -> Tensor:
    """|psi - psi_hat|^2, summed over D, averaged over tokens: (B,). L_diff before its weight in t, equation 2."""
    return (psi_BND - psi_hat_BND).square().sum(dim=2).mean(dim=1)


def consistency(teacher_logits_BNK: Tensor, student_logits_BNK: Tensor) -> Tensor:
    """KL(teacher at s || student at t), averaged over tokens: (B,), nats. L_cm, equation 3."""
    log_p = teacher_logits_BNK.detach().log_softmax(dim=2)
    log_q = student_logits_BNK.log_softmax(dim=2)
    return (log_p.exp() * (log_p - log_q)).sum(dim=2).mean(dim=1)
