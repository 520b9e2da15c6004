"""What a transformer cannot do without: its matrix products and attention, forward and backward, on random numbers.

No norms, biases, activations, sums, gathers, losses, optimiser, and no random numbers but attention's dropout.
Shapes: B images, N tokens, D input size, W width, K codes.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.sizes import Size
from vqlcmd.diffusion.consistency import STEPS

Back = Callable[[Tensor], Tensor]
"""From the gradient of an output to that of an input."""


class Floor:
    """The products of a `Size`; linear layers in `dtype`, as under autocast."""

    def __init__(self, size: Size, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32):
        net = size.params.network
        self.size, self.device, self.dtype = size, torch.device(device), dtype
        self.causal = size.params.method == "autoregressive"
        self.random = cache(self._random)
        W, D = net.width, size.params.embedding_dim
        self.input, self.output = self._weight(W, D), self._weight(size.codes, W)
        self.table = self._weight(size.codes, D).float()
        shapes = {"qkv": (3 * W, W), "out": (W, W), "up": (4 * W, W), "down": (W, 4 * W), "time": (2 * W, W)}
        shapes |= {"class": (2 * W, W)} if size.classes else {}
        self.blocks = [{name: self._weight(*shape) for name, shape in shapes.items()} for _ in range(net.layers)]

    def look(self, images: int, seen: int | None = None) -> None:
        """One pass forward; with `seen`, of one token that attends to so many."""
        with torch.no_grad():
            self._forward(images, seen, [], learn=False)

    def learn(self, images: int) -> None:
        """One pass forward and backward."""
        tape: list[Back] = []
        g = self._forward(images, None, tape, learn=True)
        while tape:
            g = tape.pop()(g)

    def expect(self, images: int, learn: bool = False) -> None:
        """The expected embedding, P (BN, K) times the table (K, D), and where it is learned its two gradients."""
        p = self.random(images * self.size.tokens, self.size.codes, torch.float32)
        x = p @ self.table
        if learn:
            _both(x, p, self.table.T)

    def training_step(self, images: int) -> None:
        """A step of the size's method. VQ-LCMD: the student at two times at once, the teacher as often as it looks."""
        if self.size.params.method == "lcmd":
            self.learn(2 * images)
            self.expect(images, learn=True)
            assert self.size.params.consistency_gradient == "full", "another gradient takes one more pass"
            for _ in range(STEPS[self.size.params.consistency_step].passes):
                self.look(images)
                self.expect(images)
            self.look(images)
        else:
            self.learn(images)

    def sampling(self, images: int, calls: int) -> None:
        """So many network calls of the size's sampler; the last one of VQ-LCMD needs no expected embedding."""
        for call in range(calls):
            self.look(images, call % self.size.tokens + 1 if self.causal else None)
            if self.size.params.method == "lcmd" and call < calls - 1:
                self.expect(images)

    def _forward(self, images: int, seen: int | None, tape: list[Back], *, learn: bool) -> Tensor:
        """The logits; `tape` gets the way back, last step last."""

        def product(x: Tensor, weight: Tensor) -> Tensor:
            if learn:
                tape.append(lambda g: _both(g, x, weight))
            return x @ weight.T

        x = self.random(images * (1 if seen else self.size.tokens), self.input.shape[1], self.dtype)
        x = product(x, self.input)
        for block in self.blocks:
            self._modulation(images, block["time"], tape, learn=learn, learned_condition=False)
            x = self._attention(product(x, block["qkv"]), images, seen, tape, learn=learn)
            x = product(x, block["out"])
            if "class" in block:
                self._modulation(images, block["class"], tape, learn=learn, learned_condition=True)
            x = product(product(x, block["up"]), block["down"])
        return product(x, self.output)

    def _modulation(
        self, images: int, weight: Tensor, tape: list[Back], *, learn: bool, learned_condition: bool
    ) -> None:
        condition = self.random(images, weight.shape[1], self.dtype)
        modulated = condition @ weight.T

        def back(g: Tensor) -> Tensor:
            _ = modulated.T @ condition
            if learned_condition:
                _ = modulated @ weight
            return g

        if learn:
            tape.append(back)

    def _attention(self, qkv: Tensor, images: int, seen: int | None, tape: list[Back], *, learn: bool) -> Tensor:
        net = self.size.params.network
        # The network too leaves half precision here on a CPU.
        dtype = torch.float32 if self.device.type == "cpu" else self.dtype
        parts = qkv.view(images, -1, 3, net.heads, net.width // net.heads).permute(2, 0, 3, 1, 4).to(dtype)
        q, k, v = (part.detach().requires_grad_(learn) for part in parts)
        if seen:
            k = v = self.random(images, self.size.tokens, net.width, dtype).view(images, net.heads, -1, q.shape[3])
            k, v = k[:, :, :seen], v[:, :, :seen]
        dropout, causal = net.dropout if learn else 0.0, self.causal and not seen
        with torch.set_grad_enabled(learn):
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal)

        def back(g: Tensor) -> Tensor:
            torch.autograd.grad(mixed, (q, k, v), g.view(images, -1, net.heads, q.shape[3]).transpose(1, 2).to(dtype))
            # Not the three gradients side by side, which would be a copy: products take as long on other numbers.
            return qkv

        if learn:
            tape.append(back)
        return mixed.detach().transpose(1, 2).reshape(-1, net.width).to(self.dtype)

    def _random(self, *shape_and_dtype: Any) -> Tensor:
        """Made once for each shape, so that drawing costs nothing later."""
        *shape, dtype = shape_and_dtype
        return torch.randn(*shape, device=self.device).to(dtype)

    def _weight(self, rows: int, columns: int) -> Tensor:
        return (torch.randn(rows, columns, device=self.device) * columns**-0.5).to(self.dtype)


def _both(g: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The gradients of x W^T: that of W is computed and let go, that of x goes on."""
    _ = g.T @ x
    return g @ weight


def flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products and the attention in `work`, which runs once."""
    cpu = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=cpu) as counter:
        work()
    return counter.get_total_flops()


def _attention_flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)


def _attention_backward_flops(g: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(g, q, k, v)
