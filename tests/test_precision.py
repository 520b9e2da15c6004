"""The precision of products: what is entered holds inside and comes back; samples, codes, features keep to it."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tests.factory import METHODS, made, normal, sampling
from tests.tokenizers import TINY, seeded
from vqlcmd import precision
from vqlcmd.diffusion.transformer import Transformer
from vqlcmd.precision import BF16, FLOAT32, PRECISIONS, TF32, computing, full_precision
from vqlcmd.rng import CounterRNG


def rounding() -> list[Any]:
    return [getattr(backend, name) for backend, name in precision.switches()]


@pytest.fixture
def loose() -> Iterator[list[Any]]:
    """TF32 allowed everywhere."""
    before = rounding()
    with computing(TF32, "cuda"):
        yield rounding()
    assert rounding() == before


def test_tf32_is_allowed_inside_alone_and_what_was_set_comes_back(loose: list[Any]) -> None:
    with computing(FLOAT32, "cuda"):
        exact = rounding()
        assert loose != exact
        with computing(TF32, "cuda"):
            assert rounding() == loose
        assert rounding() == exact
    with full_precision():
        assert rounding() == exact
    assert rounding() == loose


def test_tf32_on_a_cpu_is_float32() -> None:
    x, before = normal(64, 64), rounding()
    with computing(TF32, "cpu"):
        assert rounding() == before
        found = x @ x
    assert torch.equal(found, x @ x)
    with computing(BF16, "cpu"):
        assert (x @ x).dtype == torch.bfloat16
        with computing(FLOAT32, "cpu"):
            assert torch.equal(x @ x, found), "whatever holds outside"


@pytest.mark.parametrize("asked", PRECISIONS)
@pytest.mark.parametrize("name", METHODS)
def test_every_pass_of_a_sampler_has_the_precision_asked_for_and_nothing_else_has(name: str, asked: str) -> None:
    method, seen = made(name), list[bool]()
    network = next(each for each in method.modules() if isinstance(each, Transformer))
    network.input.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    label = torch.tensor([0, 1])
    for guidance in (0.0, 1.5):
        method.sample(label, CounterRNG(0, "sample", torch.arange(2)), sampling(3, guidance=guidance, precision=asked))
    assert seen
    assert set(seen) == {asked == BF16}
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", METHODS)
def test_samples_in_tf32_are_those_in_float32_where_there_is_no_tf32(name: str) -> None:
    method, label = made(name), torch.tensor([0, 1, 2])
    how = sampling(3)
    found = [
        method.sample(label, CounterRNG(0, "sample", torch.arange(3)), dataclasses.replace(how, precision=each))
        for each in (FLOAT32, TF32)
    ]
    assert torch.equal(*found)


def test_a_tokenizer_encodes_and_decodes_as_asked_and_in_float32_unless_asked(loose: list[Any]) -> None:
    """cuDNN takes TF32 for convolutions unless told otherwise."""
    tokenizer, images, seen = seeded(TINY), normal(4, 3, 8, 8), list[torch.dtype]()
    for part in (tokenizer.encoder, tokenizer.decoder):
        part.register_forward_hook(lambda _, __, made: seen.append(made.dtype))
    tokens = tokenizer.encode(images)
    with computing(BF16, "cpu"):
        assert torch.equal(tokenizer.encode(images), tokens), "whatever holds outside"
        shown = tokenizer.decode(tokens)
    assert set(seen) == {torch.float32}
    seen.clear()
    rough = tokenizer.decode(tokens, precision=BF16)
    assert tokenizer.encode(images, precision=BF16).shape == tokens.shape
    assert set(seen) == {torch.bfloat16}
    assert rough.dtype == torch.float32
    assert 0 < (rough - shown).abs().max() < 0.1


def test_codes_are_searched_in_float32_also_where_the_encoder_is_not() -> None:
    tokenizer, seen = seeded(TINY), list[torch.dtype]()
    search = tokenizer.quantize.nearest
    tokenizer.quantize.nearest = lambda z: (seen.append((z @ z.transpose(2, 3)).dtype), search(z))[1]  # pyright: ignore
    tokenizer.encode(normal(2, 3, 8, 8), precision=BF16)
    assert seen == [torch.float32]
