"""Which loss term shrinks the embedding table, and which one expands it? Section 7 of docs/method.md.

Shapes: B images, N tokens, K codes, D embedding size.
"""

import math

import torch
from torch import Tensor

from vqlcmd.diffusion.method import Method
from vqlcmd.rng import CounterRNG


def table_gradients(
    student: Method,
    teacher: Method,
    tokens_BN: Tensor,
    label: Tensor | None,
    seed: int,
    batch_size: int,
    at_once: int,
) -> dict[str, float]:
    """{name: value}: for each weighted loss term, its gradient's norm with respect to the table and cosine with it.

    The gradient is that of the mean over whole batches, computed for `at_once` images at a time; [mask] counts as one
    more row of the table. A positive cosine means that gradient descent shrinks the table, a negative one that it
    expands it. Empty if the table is not learned. The student is put into eval mode and stays in it.
    """
    student.eval()
    table = [parameter for parameter in student.embedding_parameters() if parameter.requires_grad]
    if not table:
        return {}
    batches = max(len(tokens_BN) // batch_size, 1)
    gradients = {name: [torch.zeros_like(parameter) for parameter in table] for name in student.weights}
    for batch in range(batches):
        for index in torch.arange(batch_size, device=tokens_BN.device).split(at_once):
            chosen = (batch * batch_size + index) % len(tokens_BN)
            rng = CounterRNG(seed, "table_gradients", index, batch)
            terms = student(tokens_BN[chosen], None if label is None else label[chosen], rng, teacher)
            for name, weight in student.weights.items():
                mean = weight * terms[name].sum() / (batches * batch_size)
                found = torch.autograd.grad(mean, table, retain_graph=True, allow_unused=True, materialize_grads=True)
                torch._foreach_add_(gradients[name], list(found))
    values: dict[str, float] = {}
    rows = [parameter.detach() for parameter in table]
    for name, found in gradients.items():
        dot = sum(float((gradient * row).sum()) for gradient, row in zip(found, rows, strict=True))
        norm, size = (math.hypot(*(float(each.norm()) for each in vectors)) for vectors in (found, rows))
        values |= {f"table_grad_{name}": norm, f"table_grad_cos_{name}": dot / (norm * size) if norm * size else 0.0}
    return values
