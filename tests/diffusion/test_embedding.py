"""Tables of token embeddings, and which tokens are dropped."""

import pytest
import torch

from tests.factory import codebook, integers, normal
from vqlcmd.diffusion.embedding import DROPPING, build_embedding
from vqlcmd.runtime.errors import ConfigError

KINDS = ["learned", "unit", "codebook"]
TOKENS = integers(8, 5, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_becomes_its_row_of_the_table(kind: str) -> None:
    embedding = build_embedding(kind, codebook(), 6, 1.0)
    assert embedding.table.shape == (8, 6)
    assert torch.equal(embedding(TOKENS), embedding.table[TOKENS])


@pytest.mark.parametrize("kind", KINDS)
def test_dropped_tokens_become_the_mask_and_others_stay(kind: str) -> None:
    embedding = build_embedding(kind, codebook(), 6, 1.0)
    dropped = normal(5, 4) > 0
    assert 0 < dropped.sum() < dropped.numel()
    psi = embedding.masked(embedding(TOKENS), dropped)
    assert torch.equal(psi[~dropped], embedding.table[TOKENS[~dropped]])
    assert torch.equal(psi[dropped], embedding.mask.expand(int(dropped.sum()), -1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_learns_from_dropped_tokens_only(kind: str) -> None:
    embedding = build_embedding(kind, codebook(), 6, 1.0)
    dropped = torch.zeros(5, 4, dtype=torch.bool)
    dropped[0, :2] = True
    embedding.masked(embedding(TOKENS), dropped).sum().backward()
    assert embedding.mask.grad is not None
    assert torch.equal(embedding.mask.grad, torch.full((6,), 2.0))


def test_rows_of_the_learned_table_learn_from_their_tokens_unless_dropped() -> None:
    embedding = build_embedding("learned", codebook(), 6, 1.0)
    tokens = torch.tensor([[0, 0, 1, 2]])
    embedding.masked(embedding(tokens), torch.tensor([[False, False, False, True]])).sum().backward()
    assert embedding.weight.grad is not None
    assert embedding.weight.grad[:, 0].tolist() == [2, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("std", [0.1, 2.0])
def test_the_table_starts_gaussian_with_the_given_spread(std: float) -> None:
    torch.manual_seed(0)
    embedding = build_embedding("learned", codebook(200), 64, std)
    assert embedding.table.std().item() == pytest.approx(std, rel=4 / (2 * 200 * 64) ** 0.5)
    assert embedding.mask.std().item() == pytest.approx(std, rel=4 / (2 * 64) ** 0.5)


@pytest.mark.parametrize("std", [0.01, 1.0])
def test_unit_rows_have_the_length_of_the_root_of_their_size(std: float) -> None:
    embedding = build_embedding("unit", codebook(), 6, std)
    assert torch.allclose(embedding.table.norm(dim=1), torch.tensor(6.0).sqrt(), rtol=1e-6)
    directions = torch.nn.functional.cosine_similarity(embedding.table, embedding.weight)
    assert torch.allclose(directions, torch.ones(8), rtol=1e-6)


def test_unit_rows_keep_their_length_whatever_training_does() -> None:
    embedding = build_embedding("unit", codebook(), 6, 1.0)
    (embedding.table * normal(8, 6)).sum().backward()
    grad = embedding.weight.grad
    assert grad is not None
    # A change along the row would change its length: the gradient has no part in that direction.
    assert (grad * embedding.weight).sum(dim=1).abs().max() < 1e-5
    assert grad.norm() > 0.1


def test_the_codebooks_table_is_frozen_and_has_mean_zero_and_unit_variance() -> None:
    embedding = build_embedding("codebook", codebook(), 6, 1.0)
    assert [name for name, _ in embedding.named_parameters()] == ["mask"]
    assert "weight" in embedding.state_dict()
    assert not embedding.table.requires_grad
    assert embedding.table.mean(dim=0).abs().max() < 1e-6
    assert embedding.table.std().item() == pytest.approx(1, abs=1e-6)


def test_the_codebooks_table_keeps_its_shape() -> None:
    """Distances are the VQGAN's, up to one factor."""
    ratio = torch.pdist(build_embedding("codebook", codebook(), 6, 1.0).table) / torch.pdist(codebook())
    assert torch.allclose(ratio, ratio[0].expand_as(ratio), rtol=1e-5)


def test_a_codebook_of_another_size_is_refused_with_the_size_to_set() -> None:
    with pytest.raises(ConfigError, match=r"embedding_dim is 7.*set it to 6"):
        build_embedding("codebook", codebook(), 7, 1.0)


def test_the_kinds_of_dropping_are_fixed_random_and_linear_in_time() -> None:
    u, t = torch.tensor([0.1, 0.9]), torch.tensor([0.3, 0.6], dtype=torch.float64)
    shares = {kind: share(0.25, u, t) for kind, share in DROPPING.items()}
    assert set(shares) == {"fixed", "random", "linear"}
    assert torch.equal(shares["fixed"], torch.full((2,), 0.25))
    assert torch.equal(shares["random"], u)
    assert torch.equal(shares["linear"], t.float())
