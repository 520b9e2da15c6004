"""FLOPs of the networks, counted by running them on PyTorch's meta device, where tensors have shapes and no numbers.

A FLOP is one multiplication or one addition. Those of matrix products and convolutions are counted; the rest is little
beside them. Shapes: N tokens, D embedding size, W width, K codes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vqlcmd import methods
from vqlcmd.diffusion.method import Method
from vqlcmd.diffusion.transformer import Transformer
from vqlcmd.params import ModelParams, Sampling
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError

META = torch.device("meta")


@dataclass(frozen=True)
class Sizes:
    """The shape of the network: N, K, D, classes that the model sees, layers, heads, W."""

    tokens: int
    codes: int
    inputs: int
    classes: int
    layers: int
    heads: int
    width: int


@contextmanager
def counting() -> Iterator[FlopCounterMode]:
    """Yields PyTorch's FLOP counter for what runs inside, with attention as plain matrix products.

    The counter does not know fused attention, which takes as many FLOPs.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def polynomial(first: Sequence[int], at: int) -> int:
    """f(at) of the polynomial f with f(1), f(2), ... = `first`, by Newton's forward differences."""
    total, binomial, differences = 0, 1, list(first)
    for order in range(len(first)):
        total += binomial * differences[0]
        binomial = binomial * (at - 1 - order) // (order + 1)
        differences = [later - earlier for earlier, later in pairwise(differences)]
    return total


class MethodCosts:
    """A method's FLOPs an image, and its parameters, each computed on demand.

    Nothing here depends on the method: its own `forward`, `sample` and `bound` run, on one image. Counts are exact
    without a run at full size, because they are polynomials in the sizes that are reduced: all blocks cost the same, so
    do all steps of a sampler, and attention is the only part that grows with the square of the tokens.
    """

    def __init__(self, params: ModelParams, how: Sampling, levels: int, sizes: Sizes, codebook_dim: int):
        self.params, self._how, self._levels, self.sizes, self._dim = params, how, levels, sizes, codebook_dim

    @cached_property
    def nfe(self) -> int:
        """The number of function evaluations (passes through the network) of one sample."""
        return self._build(1).nfe(self._how)

    @cached_property
    def parameters(self) -> int:
        """The number of the method's parameters, with its table of embeddings."""
        return self._at_depth(lambda depth: sum(each.numel() for each in self._build(depth).parameters()))

    @cached_property
    def buffers(self) -> int:
        """Bytes of the method's buffers, which it has beside its parameters."""
        return sum(each.nbytes for each in self._build(1).buffers())

    @cached_property
    def forward(self) -> int:
        """FLOPs of one pass of N tokens through the network."""

        def run(depth: int) -> int:
            shape = vars(replace(self.sizes, layers=depth))
            with META, counting() as counter:
                net = self.params.network
                network = Transformer(**shape, dropout=net.dropout, positions=net.positions)
                network(torch.empty(1, self.sizes.tokens, self.sizes.inputs), torch.empty(1), self._label())
            return counter.get_total_flops()

        return self._at_depth(run)

    @cached_property
    def training(self) -> int:
        """FLOPs an image of a training step: the loss terms and their gradients."""
        return self._at_depth(self._step)

    @cached_property
    def students(self) -> int:
        """How many images pass through the network with gradients for each image of a training step."""
        learned = 0

        def look(_: object, __: object, logits_BNK: Tensor) -> None:
            nonlocal learned
            learned += len(logits_BNK) if logits_BNK.requires_grad else 0

        method = self._build(1).train()
        networks = [each for each in method.modules() if isinstance(each, Transformer)]
        assert networks, f"{type(method).__name__} has no network"
        for each in networks:
            each.register_forward_hook(look)
        method(self._tokens(), self._label(), self._rng(), method)
        return learned

    @cached_property
    def sampling(self) -> int:
        """FLOPs of a sample, with the requested steps and guidance."""
        return self._at_depth(self._sampled)

    @cached_property
    def sampling_bytes(self) -> int:
        """The least bytes that each sample adds while it is drawn: the largest input and output of a layer together."""
        one, two = (replace(self._how, steps=steps) for steps in (1, 2))
        method = self._build(1)
        by_token = method.nfe(one) == method.nfe(two)
        method = self._build(1, 2 if by_token else None).eval()
        return _largest_layer(method, lambda: method.sample(self._label(), self._rng(), one))

    @cached_property
    def bound_bytes(self) -> int:
        """The least bytes that each image adds while its bound is computed, counted in the same way."""
        method = self._build(1).eval()
        return _largest_layer(method, lambda: method.bound(self._tokens(), self._label(), self._rng(), 1))

    @cached_property
    def bound(self) -> int:
        """FLOPs of the bound on one image."""
        return self._at_depth(lambda depth: polynomial([self._bounded(depth, few) for few in (1, 2)], self._levels))

    def _at_depth(self, count: Callable[[int], int]) -> int:
        return polynomial([count(1), count(2)], self.sizes.layers)

    def _step(self, depth: int) -> int:
        method = self._build(depth).train()
        with counting() as counter:
            terms = method(self._tokens(), self._label(), self._rng(), method)
            torch.stack([term.mean() for term in terms.values()]).sum().backward()
        return counter.get_total_flops()

    def _sampled(self, depth: int) -> int:
        one, two = (replace(self._how, steps=steps) for steps in (1, 2))
        method = self._build(depth)
        calls, more = method.nfe(one), method.nfe(two)
        if calls == more:
            # One step per token, each of which attends to the tokens before it.
            return polynomial([self._draw(depth, tokens, one) for tokens in (1, 2, 3)], self.sizes.tokens)
        first, second = (self._draw(depth, self.sizes.tokens, how) for how in (one, two))
        return first + (self.nfe - calls) * (second - first) // (more - calls)

    def _draw(self, depth: int, tokens: int, how: Sampling) -> int:
        method = self._build(depth, tokens).eval()
        with counting() as counter:
            method.sample(self._label(), self._rng(), how)
        return counter.get_total_flops()

    def _bounded(self, depth: int, levels: int) -> int:
        method = self._build(depth).eval()
        with counting() as counter:
            method.bound(self._tokens(), self._label(), self._rng(), levels)
        return counter.get_total_flops()

    def _build(self, depth: int, tokens: int | None = None) -> Method:
        network = self.params.network.model_copy(update={"layers": depth})
        params = self.params.model_copy(update={"network": network})
        try:
            with META:
                codebook_KD = torch.empty(self.sizes.codes, self._dim)
                return methods.build(params, codebook_KD, tokens or self.sizes.tokens, self.sizes.classes)
        except RuntimeError as error:
            # Bytes are counted in 64 bits, even those of a tensor without memory.
            raise ConfigError(
                f"a network of width {self.sizes.width:,} with embedding_dim {self.sizes.inputs:,} is larger than any "
                f"memory: lower network.width or embedding_dim ({str(error).splitlines()[0][:100]})"
            ) from None

    def _tokens(self) -> Tensor:
        return torch.empty(1, self.sizes.tokens, dtype=torch.int64, device=META)

    def _label(self) -> Tensor | None:
        return torch.empty(1, dtype=torch.int64, device=META) if self.sizes.classes else None

    def _rng(self) -> CounterRNG:
        return _NoNumbers(0, "count", torch.empty(1, dtype=torch.int64, device=META))


def _largest_layer(method: Method, run: Callable[[], object]) -> int:
    """The most bytes of a layer's inputs and outputs together, while `run` calls the layers of `method`."""
    largest = 0

    def look(_: object, given: tuple[object, ...], made: object) -> None:
        nonlocal largest
        largest = max(largest, sum(each.nbytes for each in (*given, made) if isinstance(each, Tensor)))

    for each in method.modules():
        each.register_forward_hook(look)
    run()
    return largest


class _NoNumbers(CounterRNG):
    """The shapes of random numbers: drawing them takes hundreds of operations, none of which is counted."""

    def _mixed(self, counts: Mapping[str, int]) -> dict[str, Tensor]:
        return {draw: self.rows.new_empty(len(self.rows), -(-count // 4) * 4) for draw, count in counts.items()}
