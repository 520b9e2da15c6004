"""Drawing tokens one after the other: our autoregressive model against GPT-2 of transformers, of the same sizes.

Both have a cache of keys and values, weights that say nothing, and draw from the whole distribution. GPT-2 has no times
and classes, which ours is modulated by.
"""

import importlib
from functools import partial
from typing import Any

import torch

from benchmarks import sizes
from benchmarks.measure import Report, interleaved, milliseconds
from benchmarks.sample import sampler
from vqlcmd.torchvision_guard import guard_torchvision

DEMO: dict[str, Any] = {}
LONGER: dict[str, Any] = {"network": {"layers": 6, "heads": 8, "width": 256}}


def gpt2(size: sizes.Size) -> Any:
    """GPT-2 with as many layers, heads, codes and tokens, and as wide."""
    guard_torchvision()
    transformers = importlib.import_module("transformers")
    net = size.params.network
    config = transformers.GPT2Config(
        vocab_size=size.codes + 1,
        n_positions=size.tokens + 1,
        n_embd=net.width,
        n_layer=net.layers,
        n_head=net.heads,
        bos_token_id=size.codes,
        eos_token_id=None,
    )
    return transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)


def compare(report: Report, tiny: bool) -> None:
    """At the demo's size, and of 256 tokens with a wider network."""
    if tiny:
        cases = {4: sizes.tiny("autoregressive")}
    else:
        longer = sizes.digits(tokens=256, method="autoregressive", **LONGER)
        cases = {256: sizes.digits(method="autoregressive", **DEMO), 16: longer}
    for batch, size in cases.items():
        model, how = gpt2(size), size.sampling(guidance=0.0)
        start = torch.full((batch, 1), size.codes)
        draw = partial(
            model.generate,
            start,
            attention_mask=torch.ones_like(start),
            do_sample=True,
            top_k=0,
            max_new_tokens=size.tokens,
            min_new_tokens=size.tokens,
            use_cache=True,
            pad_token_id=size.codes,
        )
        assert draw().shape == (batch, size.tokens + 1)
        found = interleaved({"ours": sampler(size, how, batch), "theirs": draw}, 1 if tiny else 5)
        net = size.params.network
        report.row(
            autoregressive=f"{batch} x {size.tokens} tokens, {net.layers} layers of {net.width}",
            peer="transformers, GPT-2",
            ours=milliseconds(found.median("ours")),
            theirs=milliseconds(found.median("theirs")),
            theirs_over_ours=report.ratio(f"generate, {size.tokens}", found.ratio("theirs", "ours"), "≥ 1"),
        )
