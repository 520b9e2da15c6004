"""The transformer: its size, what reaches its logits and what does not."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.factory import model_params, normal, perturb
from vqlcmd import methods
from vqlcmd.diffusion import transformer
from vqlcmd.diffusion.transformer import AdaLN, Attention, ClassAdaLN, KVCache, Rotary, Transformer, sinusoid

T, Z = torch.tensor([0.2, 0.7, 0.9]), normal(3, 5, 6)


def made_transformer(**overrides: Any) -> Transformer:
    sizes: dict[str, Any] = {"tokens": 5, "inputs": 6, "codes": 7, "classes": 0, "layers": 2, "heads": 2}
    torch.manual_seed(0)
    model = Transformer(**{**sizes, "width": 16, "dropout": 0.0, "positions": "sinusoidal", **overrides})
    perturb(model)
    return model.eval()


@pytest.mark.parametrize(
    ("layers", "heads", "width", "classes", "parameters"),
    [(15, 8, 512, 0, 56_070_400), (24, 16, 768, 1000, 246_431_232)],
)
def test_the_paper_sizes_have_56_and_246_million_parameters(
    layers: int, heads: int, width: int, classes: int, parameters: int
) -> None:
    """Table and [mask] included: 56M and 246M in the paper, arXiv 2410.14758."""
    settings = model_params(embedding_dim=256, network={"layers": layers, "heads": heads, "width": width})
    with torch.device("meta"):
        method = methods.build(settings, torch.empty(1024, 256), 256, classes)
    assert sum(parameter.numel() for parameter in method.parameters()) == parameters


def test_logits_have_one_row_per_token_and_one_column_per_code() -> None:
    logits = made_transformer()(Z, T.double())
    assert logits.shape == (3, 5, 7)
    assert logits.dtype == torch.float32


def test_the_class_changes_the_logits_and_the_null_class_is_another_one() -> None:
    model = made_transformer(classes=3)
    logits = torch.stack([model(Z, T, torch.full((3,), label)) for label in range(4)])
    for one in range(4):
        for other in range(one):
            assert (logits[one] - logits[other]).abs().amax(dim=(1, 2)).min() > 1e-3


def test_each_image_gets_its_own_class_and_time() -> None:
    model = made_transformer(classes=3)
    label = torch.tensor([2, 0, 3])
    together = model(Z, T, label)
    for image in range(3):
        alone = model(Z[image : image + 1], T[image : image + 1], label[image : image + 1])
        assert torch.allclose(alone, together[image : image + 1], atol=1e-5)


def test_classes_are_ignored_by_a_model_without_them() -> None:
    model = made_transformer()
    assert torch.equal(model(Z, T, torch.tensor([0, 5, 9])), model(Z, T))


def test_the_time_changes_the_logits() -> None:
    model = made_transformer()
    assert (model(Z, T) - model(Z, T + 0.01)).abs().max() > 1e-3


def test_a_fresh_model_does_not_look_at_time_nor_class_yet() -> None:
    """Modulations start at zero, so that training starts from a plain transformer."""
    shape: dict[str, Any] = {"tokens": 5, "inputs": 6, "codes": 7, "layers": 2, "heads": 2, "width": 16, "dropout": 0.0}
    model = Transformer(classes=3, positions="sinusoidal", **shape)
    assert torch.equal(model(Z, T, torch.tensor([0, 1, 2])), model(Z, T + 0.1, torch.tensor([3, 3, 3])))


def test_permuting_tokens_together_with_their_positions_permutes_the_logits() -> None:
    """So the positions are all that the model knows of the order, and attention looks both ways."""
    model, order = made_transformer(), torch.tensor([3, 0, 4, 1, 2])
    logits = model(Z, T)
    assert (model(Z[:, order], T) - logits[:, order]).abs().max() > 1e-2
    model.positions = model.positions[order]
    assert torch.allclose(model(Z[:, order], T), logits[:, order], atol=1e-5)


def test_every_token_sees_every_other_one() -> None:
    model, z = made_transformer(), Z[:1].clone().requires_grad_()
    logits = model(z, T[:1])
    for token in range(5):
        (grad,) = torch.autograd.grad(logits[0, token].square().sum(), z, retain_graph=True)
        assert (grad[0].abs().sum(dim=1) > 0).all()


def test_a_token_of_a_causal_model_sees_itself_and_those_before_it() -> None:
    model, z = made_transformer(causal=True), Z[:1].clone().requires_grad_()
    logits = model(z, T[:1])
    for token in range(5):
        (grad,) = torch.autograd.grad(logits[0, token].square().sum(), z, retain_graph=True)
        assert ((grad[0].abs().sum(dim=1) > 0) == (torch.arange(5) <= token)).all()


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_token_by_token_with_a_memory_a_causal_model_says_what_it_says_at_once(positions: str) -> None:
    model = made_transformer(causal=True, classes=3, layers=3, positions=positions)
    label = torch.tensor([0, 3, 1])
    memory, whole = KVCache(5), model(Z, T, label)
    for token in range(5):
        assert memory.length == token
        logits = model(Z[:, token : token + 1], T, label, memory)
        assert logits.shape == (3, 1, 7)
        assert torch.allclose(logits[:, 0], whole[:, token], rtol=1e-5, atol=1e-5)


def test_a_memory_gives_back_all_keys_and_values_so_far_of_the_block_that_asks() -> None:
    memory, k, v = KVCache(4), normal(4, 2, 3, 1, 8), normal(4, 2, 3, 1, 8, seed=1)
    for token in range(4):
        for block in range(2):
            keys, values = memory.extend(block, k[token] + block, v[token] - block)
            assert torch.equal(keys, torch.cat(list(k[: token + 1]), dim=2) + block)
            assert torch.equal(values, torch.cat(list(v[: token + 1]), dim=2) - block)
        memory.length += 1


def test_dropout_acts_in_training_and_not_in_evaluation() -> None:
    model = made_transformer(dropout=0.5)
    assert torch.equal(model(Z, T), model(Z, T))
    assert torch.equal(model(Z, T), made_transformer(dropout=0.0)(Z, T))
    model.train()
    assert not torch.allclose(model(Z, T), model(Z, T), atol=1e-3)


def test_adaln_is_the_formula_of_the_papers() -> None:
    """(x - mean) / sqrt(var + 1e-5) * (1 + scale) + shift, [scale, shift] = W (c sigmoid(c)) + b, by hand."""
    norm, x, c = AdaLN(6), normal(3, 5, 6), normal(3, 6, seed=1)
    perturb(norm)
    weight, bias = norm.modulation.weight, norm.modulation.bias
    for image in range(3):
        both = weight @ (c[image] * torch.sigmoid(c[image])) + bias
        for token in range(5):
            row = x[image, token]
            plain = (row - row.mean()) / (row.var(correction=0) + 1e-5).sqrt()
            assert torch.allclose(norm(x, c)[image, token], plain * (1 + both[:6]) + both[6:], atol=1e-5)


def test_class_adaln_is_adaln_on_the_classes_row() -> None:
    norm = ClassAdaLN(6, 3)
    perturb(norm)
    assert norm.classes.weight.shape == (4, 6)
    label = torch.tensor([3, 0, 2])
    assert torch.equal(norm(Z, label), norm.norm(Z, norm.classes.weight[label]))


def test_attention_is_softmax_of_scaled_products_in_each_head() -> None:
    attention, x = Attention(8, 2, 0.0), normal(2, 5, 8)
    perturb(attention)
    q, k, v = attention.qkv(x).chunk(3, dim=2)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = (q[..., head] @ k[..., head].transpose(1, 2) / 4**0.5).softmax(dim=2)
        heads.append(weights @ v[..., head])
    assert torch.allclose(attention(x), attention.out(torch.cat(heads, dim=2)), atol=1e-5)


def test_attention_counts_in_float32_on_a_cpu_under_bf16_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fused backward pass in bf16 is many times slower there.

    Casting the arguments is not enough: autocast casts them back.
    """
    seen: list[torch.dtype] = []
    fused = F.scaled_dot_product_attention

    def spy(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        mixed = fused(q, k, v, **options)
        seen.append(mixed.dtype)
        return mixed

    monkeypatch.setattr(transformer.F, "scaled_dot_product_attention", spy)
    with torch.autocast("cpu", torch.bfloat16):
        made_transformer()(Z, T)
    assert seen == [torch.float32] * 2


def test_positions_are_fixed_sines_and_cosines_and_no_part_of_the_state() -> None:
    model = made_transformer()
    assert "positions" not in model.state_dict()
    assert torch.allclose(model.positions[:, 0], torch.arange(5).sin())
    assert torch.allclose(model.positions[:, 8], torch.arange(5).cos())
    assert torch.allclose(model.positions[:, 15], (torch.arange(5) * 1e-4).cos())


def test_rotary_positions_rotate_each_pair_of_features_as_a_complex_number() -> None:
    """(u + iv) e^(i position 10000^(-2j/d)) for the j-th of the d/2 pairs, by complex numbers."""
    x = normal(2, 3, 5, 8)
    pairs = torch.complex(x[..., :4].double(), x[..., 4:].double())
    angles = torch.arange(5).double()[:, None] * 10_000.0 ** (-torch.arange(4).double() / 4)
    rotated = pairs * torch.polar(torch.ones_like(angles), angles)
    assert torch.allclose(Rotary(5, 8)(x).double(), torch.cat([rotated.real, rotated.imag], dim=-1), atol=1e-6)
    assert Rotary(5, 8)(x.bfloat16()).dtype == torch.bfloat16


def test_rotary_attention_knows_relative_positions_and_no_others() -> None:
    """Three tokens at places 0 to 2 have the products that they have at places 4 to 6."""
    rotate, q, k = Rotary(9, 8), normal(1, 2, 3, 8), normal(1, 2, 3, 8, seed=1)
    products = [rotate(q, first) @ rotate(k, first).transpose(2, 3) for first in (0, 4)]
    assert torch.allclose(*products, atol=1e-5)
    assert (products[0] - q @ k.transpose(2, 3)).abs().max() > 0.1


def test_a_network_with_rotary_positions_knows_the_order_and_adds_nothing_to_its_state() -> None:
    plain, model, order = made_transformer(), made_transformer(positions="rotary"), torch.tensor([3, 0, 4, 1, 2])
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert (model(Z[:, order], T) - model(Z, T)[:, order]).abs().max() > 1e-2
    for each in model.modules():
        if isinstance(each, Attention):
            each.rotary = None
    assert torch.allclose(model(Z[:, order], T), model(Z, T)[:, order], atol=1e-5)


def test_sinusoids_have_length_root_half_the_width_and_tell_nearby_times_apart() -> None:
    times = torch.linspace(0, 1, 1001) * 1000
    rows = sinusoid(times, 32)
    assert torch.allclose(rows.norm(dim=1), torch.tensor(4.0), rtol=1e-5)
    assert torch.pdist(rows).min() > 0.5


def test_weights_start_by_xavier_with_biases_at_zero() -> None:
    shape: dict[str, Any] = {"tokens": 5, "inputs": 6, "codes": 7, "layers": 1, "heads": 2, "width": 64, "dropout": 0.0}
    model = Transformer(classes=0, positions="sinusoidal", **shape)
    linear = model.output
    assert isinstance(linear, nn.Linear)
    assert linear.weight.abs().max().item() <= (6 / (64 + 7)) ** 0.5
    assert linear.weight.std().item() == pytest.approx((2 / (64 + 7)) ** 0.5, rel=0.15)
    assert not linear.bias.any()
