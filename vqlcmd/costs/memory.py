"""Bytes that a network takes, and one line where a machine has fewer, before anything is allocated.

Shapes: N tokens, K codes, P parameters.
"""

import os
from dataclasses import dataclass

import torch

from vqlcmd.costs.flops import MethodCosts, Sizes
from vqlcmd.params import ModelParams, Sampling
from vqlcmd.runtime.errors import ConfigError

FLOAT = 4


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that training takes: P numbers of each kind, and what each image that goes through at once adds."""

    weights: int
    gradients: int
    moments: int
    average: int
    per_image: int

    @property
    def fixed(self) -> int:
        return self.weights + self.gradients + self.moments + self.average

    def images(self, available: float) -> int:
        """How many images fit at once into so many bytes."""
        return max(int((available - self.fixed) // self.per_image), 0)


def method_costs(
    params: ModelParams, how: Sampling, *, tokens: int, codes: int, codebook_dim: int, classes: int, levels: int = 2
) -> MethodCosts:
    """The costs of the method that `params` name: of so many tokens an image, codes, and classes (0 for none)."""
    net = params.network
    sizes = Sizes(tokens, codes, params.embedding_dim, classes, net.layers, net.heads, net.width)
    return MethodCosts(params, how, levels, sizes, codebook_dim)


def training_memory(costs: MethodCosts, on_cpu: bool) -> TrainingMemory:
    """Training in float32; in bf16 the activations take less."""
    weights = FLOAT * costs.parameters
    per_image = activations(costs.sizes, costs.students, stored=on_cpu and costs.params.network.dropout > 0)
    return TrainingMemory(weights, weights, 2 * weights, weights, per_image)


def activations(sizes: Sizes, students: int, stored: bool) -> int:
    """Bytes in float32 that the gradients of one image need; `stored` attention weights come with dropout on a CPU.

    Of a block: 17 vectors of width W a token (norms, queries, keys, values, their mixture, twice four for the MLP), one
    more with classes. One block's worth is added, in which the backward pass works.
    """
    vectors = sizes.tokens * sizes.width
    block = 17 * vectors + (vectors if sizes.classes else 0)
    block += 3 * sizes.heads * sizes.tokens**2 if stored else 0
    ends = 2 * vectors + sizes.tokens * (2 * sizes.inputs + 3 * sizes.codes)
    return FLOAT * students * ((sizes.layers + 1) * block + ends)


def free_memory(device: torch.device) -> int:
    """Bytes that a process of this stage may still take: the GPU's, or its share of memory and swap."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    free = psutil.virtual_memory().available + psutil.swap_memory().free
    return free // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def require_training(costs: MethodCosts, images: int, device: torch.device) -> None:
    """ConfigError where training with `images` at once cannot fit into what is free."""
    needed, free = training_memory(costs, on_cpu=device.type == "cpu"), free_memory(device)
    fixed = needed.fixed + 2 * costs.buffers
    # The least that is certain: bf16 may halve the activations.
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
        f"parameters and {gigabytes(each)} for each of {images:,} images at once; {gigabytes(free)} are free: {remedy}"
    )


def require_sampling(costs: MethodCosts, images: int, device: torch.device) -> None:
    """ConfigError where drawing `images` at once cannot fit into what is free, beside a model that is loaded."""
    each, free = costs.sampling_bytes, free_memory(device)
    if images * each <= free:
        return
    fitting = free // each
    remedy = f"set sample.batch_size to {fitting:,} or less" if fitting else "sample on a machine with more"
    raise ConfigError(
        f"sampling takes at least {gigabytes(images * each)}, {gigabytes(each)} for each of {images:,} images at once; "
        f"{gigabytes(free)} are free: {remedy}"
    )


def gigabytes(count: float) -> str:
    """Bytes as GB with three digits."""
    return f"{count / 1e9:,.3g} GB" if count < 1e12 else f"{count / 1e9:,.0f} GB"
