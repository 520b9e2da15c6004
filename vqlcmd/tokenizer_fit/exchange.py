"""Communication between the processes of a fit; no-ops with a single process.

DistributedDataParallel is not used: which weights have a gradient changes from phase to phase, and the adversarial
weight needs gradients of its own before the backward pass.

Shapes: R rows of one process, W R rows of all W processes.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn

from vqlcmd.runtime.distributed import world


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over processes, in one message."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if world() > 1 and gradients:
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= world()
        for gradient, mean in zip(gradients, flat.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def gather_rows(rows_R: Tensor) -> Tensor:
    """The rows of all processes in the order of ranks, as a single process would have them: [W R, ...]."""
    if world() == 1:
        return rows_R
    everyone = [torch.empty_like(rows_R) for _ in range(world())]
    distributed.all_gather(everyone, rows_R.contiguous())
    return torch.cat(everyone)


def broadcast(value: Tensor) -> None:
    """Replace `value` by what process 0 has."""
    if world() > 1:
        distributed.broadcast(value, src=0)
