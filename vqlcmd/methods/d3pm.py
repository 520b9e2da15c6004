"""D3PM with uniform transitions (Austin et al. 2021): every step replaces some tokens by random codes.

Section 8 of docs/method.md. Shapes: B images, N tokens, K codes.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vqlcmd.diffusion import losses
from vqlcmd.diffusion.discrete import DiscreteDiffusion
from vqlcmd.diffusion.markov import sample_categorical
from vqlcmd.params import ModelParams
from vqlcmd.rng import CounterRNG


def cosine(timesteps: int) -> Tensor:
    """Fraction of tokens that no step up to t has replaced, for t = 0 to T: (T + 1,) float64.

    f(u) = cos((u + 0.008) / 1.008 pi / 2), not squared, and beta_t = min(1 - f(t / T) / f((t - 1) / T), 0.999).
    """
    u = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
    f = torch.cos((u + 0.008) / 1.008 * (math.pi / 2))
    beta = (1 - f[1:] / f[:-1]).clamp_max(0.999)
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - beta).cumprod(dim=0)])


SCHEDULES: dict[str, Callable[[int], Tensor]] = {"cosine": cosine}
"""Valid values of `discrete.schedule.d3pm`: functions from T to the fraction of tokens kept at times 0 to T."""


class D3PM(DiscreteDiffusion):
    """States are the K codes; the loss is the bound plus 0.001 times the cross-entropy."""

    betas = (0.9, 0.999)
    weight_decay = 0.0
    schedules = SCHEDULES
    built_by = (*DiscreteDiffusion.built_by, "discrete.schedule.d3pm")

    def __init__(self, params: ModelParams, codebook_KD: Tensor, tokens: int, classes: int):
        keep = SCHEDULES[params.discrete.schedule["d3pm"]](params.discrete.timesteps)
        super().__init__(params, codebook_KD, tokens, classes, keep=keep, mask=torch.zeros_like(keep), extra_states=0)
        self.weights = {"vb": 1.0, "ce": 0.001}

    def forward(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, teacher: Any) -> dict[str, Tensor]:
        """{"vb": L_vb(t), "ce": -log p(x_0 | x_t)} at one step t per image, nats per token: (B,) each."""
        t = self.steps_at(rng.stratified("time", self.batch_size))
        x_BN = self.diffuse(tokens_BN, t, rng)
        logits_BNK = self.logits(x_BN, self.network_time(t), self.drop_classes(label, rng))
        vb = self.divergence(logits_BNK, tokens_BN, x_BN, t)
        return {"vb": vb, "ce": losses.cross_entropy(logits_BNK, tokens_BN)}

    def reverse(self, p_BNK: Tensor, x_BN: Tensor, s: Tensor, t: Tensor) -> Tensor:
        joint = self.kernel.joint(p_BNK, x_BN, s, t)
        # At t = 1 the network predicts x_0 itself, as in training. A longer stride that ends at 0 needs the joint.
        return torch.where((t == 1)[:, None, None], torch.nn.functional.pad(p_BNK, (0, 1)), joint)

    def step(self, p_BNK: Tensor, x_BN: Tensor, s: Tensor, t: Tensor, u_BN: Tensor) -> Tensor:
        reverse = self.reverse(p_BNK, x_BN, s, t)
        return torch.where((s == 0)[:, None], reverse.argmax(dim=2), sample_categorical(reverse, u_BN))
