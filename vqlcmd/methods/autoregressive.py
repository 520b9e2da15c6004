"""An autoregressive transformer over tokens in raster order (Esser et al. 2021, the VQGAN row of the paper).

Section 8 of docs/method.md. Shapes: B images, N tokens, K codes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vqlcmd.diffusion import collapse, losses
from vqlcmd.diffusion.discrete import SHARES, Discrete
from vqlcmd.diffusion.guidance import guided, precise
from vqlcmd.diffusion.markov import sample_categorical
from vqlcmd.diffusion.transformer import KVCache
from vqlcmd.params import ModelParams, Sampling
from vqlcmd.rng import CounterRNG


class Autoregressive(Discrete):
    """The trunk with a causal mask, which predicts token i from a start token and the tokens before i. No time."""

    betas = (0.9, 0.95)
    weight_decay = 0.01
    supports_inpainting = False

    def __init__(self, params: ModelParams, codebook_KD: Tensor, tokens: int, classes: int):
        super().__init__(params, codebook_KD, tokens, classes, causal=True)
        self.weights = {"ce": 1.0}

    def forward(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, teacher: Any) -> dict[str, Tensor]:
        """{"ce": -log p(x)} in nats per token: (B,)."""
        x_BN, t = self.noised(tokens_BN, tokens_BN.new_zeros(len(tokens_BN), dtype=torch.float32), rng)
        return {"ce": losses.cross_entropy(self.logits(x_BN, t, self.drop_classes(label, rng)), tokens_BN)}

    def noised(self, tokens_BN: Tensor, u: Tensor, rng: CounterRNG) -> tuple[Tensor, Tensor]:
        """The start token followed by all tokens but the last: (B, N), and times 0: (B,). `u` is ignored."""
        return F.pad(tokens_BN[:, :-1], (1, 0), value=self.codes), torch.zeros_like(u)

    @torch.no_grad()
    def sample(self, label: Tensor | None, rng: CounterRNG, how: Sampling, known: Tensor | None = None) -> Tensor:
        """Tokens (B, N) int64, drawn one by one in raster order; `how.steps` is ignored. ConfigError for `known`."""
        self.check(how, infill=known is not None)
        memory, size = KVCache(self.tokens), len(rng.rows)

        def following(x_BN: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
            return self.network(self.embedding(x_BN), t, label, memory)

        predict = guided(precise(following, how), how.guidance, null=self.classes)
        t = torch.zeros(size, device=rng.rows.device)
        u_BN = rng.uniform("step", self.tokens)
        x_BN = torch.full((size, 1), self.codes, device=rng.rows.device)
        for place in range(self.tokens):
            p_B1K = predict(x_BN[:, -1:], t, label).softmax(dim=2)
            x_BN = torch.cat([x_BN, sample_categorical(p_B1K, u_BN[:, place : place + 1])], dim=1)
        return x_BN[:, 1:]

    def steps(self, how: Sampling) -> int:
        """N, one step per token, whatever `how.steps` is."""
        return self.tokens

    def nfe(self, how: Sampling) -> int:
        """Passes through the network that one image costs, each of a single token."""
        return self.tokens * (2 if how.guidance else 1)

    @torch.no_grad()
    def bound(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, levels: int) -> Tensor:
        """The exact -log p(x) instead of a bound, nats per token: (B,). `levels` is ignored."""
        x_BN, t = self.noised(tokens_BN, torch.zeros(len(tokens_BN), device=tokens_BN.device), rng)
        return losses.cross_entropy(self.logits(x_BN, t, label), tokens_BN)

    @torch.no_grad()
    def diagnostics(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG) -> dict[str, float]:
        """Section 7: statistics of the input table, and the cross-entropy of the next token at five positions.

        `ce_T` is measured at the position at which the fraction T of the tokens is still unknown.
        """
        found = collapse.geometry(self.table)
        x_BN, t = self.noised(tokens_BN, torch.zeros(len(tokens_BN), device=tokens_BN.device), rng)
        nats_BN = F.cross_entropy(self.logits(x_BN, t, label).transpose(1, 2), tokens_BN, reduction="none")
        for share in SHARES:
            place = min(round((1 - share) * self.tokens), self.tokens - 1)
            found[f"ce_{share}"] = float(nats_BN[:, place].mean())
        return found

    def alpha_bar(self, u: Tensor) -> Tensor:
        return 1 - u.double()
