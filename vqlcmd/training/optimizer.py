"""AdamW with its parameter groups, and the learning-rate schedule. Section 4 of docs/method.md."""

import math

import torch
from torch import nn

from vqlcmd.diffusion.method import Method
from vqlcmd.lr_schedule import warmup_cosine
from vqlcmd.params import Train


def build_optimizer(method: Method, settings: Train) -> torch.optim.Optimizer:
    """AdamW over all trainable parameters: only matrices decay, and the embedding table has its own learning rate."""
    # Weight decay on embeddings, gains and biases would pull them towards 0 without any benefit.
    matrices = {id(module.weight) for module in method.modules() if isinstance(module, nn.Linear)}
    tables = {id(parameter) for parameter in method.embedding_parameters()}
    learned = [parameter for parameter in method.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in learned if id(parameter) in matrices]
    table = [parameter for parameter in learned if id(parameter) in tables]
    others = [parameter for parameter in learned if id(parameter) not in matrices | tables]
    decay = method.weight_decay if settings.weight_decay is None else settings.weight_decay
    betas = method.betas if settings.betas is None else (settings.betas[0], settings.betas[1])
    groups = [
        {"params": decayed, "weight_decay": decay},
        {"params": others},
        {"params": table, "lr": settings.learning_rate * settings.embedding_lr_scale},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=betas,
        weight_decay=0.0,
        fused=True,
    )


def learning_rate(step: int, steps: int, settings: Train) -> float:
    """Factor on the learning rate: linear warm-up, then half a cosine down to `final_lr_ratio`."""
    rise = (step + 1) / settings.warmup if settings.warmup else 1.0
    progress = (step - settings.warmup) / max(steps - settings.warmup, 1)
    return warmup_cosine(rise, math.pi * progress, settings.final_lr_ratio)
