"""A training step of a masked model in our loop, against a plain loop over torch.nn.TransformerEncoder of equal size.

The plain loop is what one writes first: logits, cross-entropy, backward, clipping, AdamW; no times, no classes, no
moving average, and the masks and their numbers from torch.rand. Ours has all of these.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks import sizes
from benchmarks.measure import Report, alongside, milliseconds
from benchmarks.step import endless_training
from vqlcmd.training import loop


class Plain(nn.Module):
    """Tokens to logits."""

    def __init__(self, size: sizes.Size):
        super().__init__()
        net = size.params.network
        self.embedding = nn.Embedding(size.codes + 1, net.width)
        self.positions = nn.Parameter(torch.randn(size.tokens, net.width))
        layer = nn.TransformerEncoderLayer(
            net.width, net.heads, 4 * net.width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, net.layers, enable_nested_tensor=False)
        self.norm, self.output = nn.LayerNorm(net.width), nn.Linear(net.width, size.codes)

    def forward(self, x_BN: torch.Tensor) -> torch.Tensor:
        return self.output(self.norm(self.blocks(self.embedding(x_BN) + self.positions)))


def plain_step(size: sizes.Size) -> Callable[[], None]:
    """A function that takes one step."""
    torch.manual_seed(0)
    model, batch = Plain(size).train(), size.params.train.batch_size
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.params.train.learning_rate)
    split = size.split(2 * batch)

    def step() -> None:
        tokens_BN = split.tokens[torch.randint(len(split), (batch,))].long()
        masked_BN = torch.rand(tokens_BN.shape) < torch.rand(batch, 1)
        logits_BNK = model(torch.where(masked_BN, size.codes, tokens_BN))
        loss = F.cross_entropy(logits_BNK.transpose(1, 2), tokens_BN, reduction="none")
        optimizer.zero_grad()
        (loss * masked_BN).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), size.params.train.clip)
        optimizer.step()

    return step


def compare(report: Report, tiny: bool) -> None:
    """MaskGIT at the demo's size, and of 256 tokens with a wider network."""
    if tiny:
        cases = [sizes.tiny("maskgit")]
    else:
        wider: dict[str, Any] = {"network": {"layers": 6, "heads": 8, "width": 256}, "train": {"batch_size": 8}}
        cases = [sizes.digits(method="maskgit"), sizes.digits(tokens=256, method="maskgit", **wider)]
    for size in cases:
        with endless_training(size) as train:
            found = alongside(loop, train, {"plain": plain_step(size)}, 2 if tiny else 15, warm=1 if tiny else 3)
        net, batch = size.params.network, size.params.train.batch_size
        report.row(
            training_step=f"{batch} x {size.tokens} tokens, {net.layers} layers of {net.width}",
            peer="nn.TransformerEncoder in a plain loop",
            ours=milliseconds(found.median("loop")),
            theirs=milliseconds(found.median("plain")),
            theirs_over_ours=report.ratio(f"encoder, {size.tokens}", found.ratio("plain", "loop"), "≥ 1"),
        )
