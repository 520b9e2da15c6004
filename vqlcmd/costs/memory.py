"""Bytes that a network takes, and a one-line error if a machine has fewer, before anything is allocated.

Shapes: N tokens, K codes, P parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from vqlcmd.costs import available
from vqlcmd.costs.available import FLOAT, gigabytes, require_images
from vqlcmd.costs.flops import MethodCosts, Sizes
from vqlcmd.methods import read_params
from vqlcmd.params import ModelParams, Sampling
from vqlcmd.precision import FLOAT32
from vqlcmd.runtime.errors import ConfigError


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that training takes: those of P numbers of each kind, and those that each image at once adds."""

    weights: int
    gradients: int
    moments: int
    average: int
    per_image: int

    @property
    def fixed(self) -> int:
        return self.weights + self.gradients + self.moments + self.average

    def images(self, available: float) -> int:
        """How many images at once fit into `available` bytes."""
        return max(int((available - self.fixed) // self.per_image), 0)


def method_costs(
    params: ModelParams, how: Sampling, *, tokens: int, codes: int, codebook_dim: int, classes: int, levels: int = 2
) -> MethodCosts:
    """The costs of the method that `params` name, for `tokens` an image, `codes`, and `classes` (0 for none)."""
    net = params.network
    sizes = Sizes(tokens, codes, params.embedding_dim, classes, net.layers, net.heads, net.width)
    return MethodCosts(params, how, levels, sizes, codebook_dim)


def model_costs(about: Mapping[str, Any], how: Sampling | None = None) -> MethodCosts:
    """The costs of a trained model, by what its file says about itself. Those of sampling need `how`."""
    return method_costs(
        read_params(about),
        how or Sampling(1, "", 0.0, {}, FLOAT32),
        tokens=about["tokens"],
        codes=about["codes"],
        codebook_dim=about["params"]["embedding_dim"],
        classes=len(about["class_names"]),
    )


def training_memory(costs: MethodCosts, on_cpu: bool) -> TrainingMemory:
    """The memory of training in float32; in bf16 the activations take less.

    The best state is in the CPU's memory, so it counts only `on_cpu`.
    """
    weights = FLOAT * costs.parameters
    net = costs.params.network
    per_image = activations(
        costs.sizes, costs.students, stored=on_cpu and net.dropout > 0, rotary=net.positions == "rotary"
    )
    averages = len(costs.params.train.ema) + (costs.params.train.keep_best if on_cpu else 0)
    return TrainingMemory(weights, weights, 2 * weights, averages * weights, per_image)


def activations(sizes: Sizes, students: int, stored: bool, rotary: bool) -> int:
    """Bytes in float32 that gradients for one image need; `stored` adds attention weights, for dropout on a CPU.

    A block takes 17 vectors of width W a token (norms, queries, keys, values, their mixture, twice four for the MLP),
    one more with classes, and two, rotated queries and keys, if `rotary`. One more block is added as working memory of
    the backward pass.
    """
    vectors = sizes.tokens * sizes.width
    block = vectors * (17 + (sizes.classes > 0) + 2 * rotary)
    block += 3 * sizes.heads * sizes.tokens**2 if stored else 0
    ends = 2 * vectors + sizes.tokens * (2 * sizes.inputs + 3 * sizes.codes)
    return FLOAT * students * ((sizes.layers + 1) * block + ends)


def require_training(costs: MethodCosts, images: int, device: torch.device) -> None:
    """Raises ConfigError if training with `images` at once cannot fit into the free memory."""
    needed, free = training_memory(costs, on_cpu=device.type == "cpu"), available.free_memory(device)
    fixed = needed.fixed + 2 * costs.buffers
    # A lower bound: bf16 may halve the activations.
    each = needed.per_image // (2 if costs.params.train.precision == "bf16" else 1)
    if fixed + images * each <= free:
        return
    fitting = max(free - fixed, 0) // each
    remedy = (
        f"set VQLCMD_MICRO_BATCH={fitting} or lower train.batch_size"
        if fitting
        else "lower network.width, network.layers, embedding_dim or discrete.timesteps"
    )
    raise ConfigError(
        f"training takes at least {gigabytes(fixed + images * each)}: {gigabytes(fixed)} for {costs.parameters:,} "
        f"parameters and {gigabytes(each)} for each of {images:,} at once; {gigabytes(free)} are free: {remedy}"
    )


def require_sampling(costs: MethodCosts, images: int, device: torch.device) -> None:
    """Raises ConfigError if drawing `images` at once cannot fit into the free memory, with the model already loaded."""
    require_images("sampling", "sample.batch_size", 0, costs.sampling_bytes, images, device)


def require_bound(costs: MethodCosts, images: int, device: torch.device) -> None:
    """Raises ConfigError if the bound of `images` at once cannot fit into the free memory, likewise."""
    require_images("the bound", "bound.batch_size", 0, costs.bound_bytes, images, device)
