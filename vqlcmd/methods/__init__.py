"""The methods: a name in params.yaml to the file that implements it, imported only when asked for.

A method is an nn.Module `Method(params, codebook, tokens, classes)` with
  weights                                    {term: weight}, the terms that `forward` returns
  forward(tokens, label, noise, teacher)     loss terms per image, unweighted
  sample(label, noise, steps=, sampler=, guidance=)   tokens
  network_calls(steps, guidance)             cost of one image
  bound(tokens, label, noise, levels)        nats per token
  diagnostics(tokens, label, noise)          what to watch during training
"""

import importlib

from torch import Tensor, nn

from vqlcmd.config import ModelParams


def build(params: ModelParams, codebook_KD: Tensor, tokens: int, classes: int) -> nn.Module:
    """The method that params.yaml names, with fresh weights from the global random state."""
    module = importlib.import_module(f"vqlcmd.methods.{params.method}")
    return module.Method(params, codebook_KD, tokens, classes)
