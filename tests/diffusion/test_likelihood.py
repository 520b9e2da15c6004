"""The likelihood of a token's own noisy embedding: with the exact P(x_i | all others), predictions are exact."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.factory import build, made, sampling
from tests.methods.test_toy import STATES, TABLE, K, N, P
from vqlcmd.diffusion.gaussian import log_likelihood
from vqlcmd.diffusion.guidance import watching
from vqlcmd.diffusion.schedule import Schedule, build_schedule
from vqlcmd.rng import CounterRNG

SCHEDULE = build_schedule("cosine", -1.0, -12.0, 6.0)
MASK = torch.tensor([0.2, 0.4])
PLACES = F.one_hot(STATES, K).float()


def densities(schedule: Schedule, z_BND: Tensor, t: Tensor, dropped: float) -> Tensor:
    """log q(z_i | x_i = k) by the Gaussian densities themselves: (B, N, K), float64."""
    alpha, sigma = (f(t)[:, None, None, None] for f in (schedule.alpha, schedule.sigma))

    def density(centre_KD: Tensor) -> Tensor:
        normal = torch.distributions.Normal(alpha * centre_KD.double(), sigma)
        return normal.log_prob(z_BND.double()[:, :, None]).sum(dim=3).exp()

    return ((1 - dropped) * density(TABLE) + dropped * density(MASK[None])).log()


class Cavity(nn.Module):
    """log P(x_i = k | z_j for all j but i), by listing all states."""

    def __init__(self, dropped: float):
        super().__init__()
        self.dropped = dropped

    def forward(self, z_BND: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        own_BNK = densities(SCHEDULE, z_BND, t, self.dropped)
        each_BSN = torch.einsum("bnk,snk->bsn", own_BNK, PLACES.double())
        others_BSN = each_BSN.sum(dim=2, keepdim=True) - each_BSN
        weights_BSN = (others_BSN + P.log()[None, :, None]).softmax(dim=1)
        return torch.einsum("bsn,snk->bnk", weights_BSN, PLACES.double()).log().float()


@pytest.mark.parametrize("dropped", [0.0, 0.3])
def test_the_likelihood_times_what_the_others_say_is_the_posterior(dropped: float) -> None:
    ends = {"name": "cosine", "log_snr_min": -12.0, "log_snr_max": 6.0}
    model = build(tokens=N, codes=K, embedding_dim=2, s=-1.0, schedule=ends, drop=dropped, likelihood=True)
    model.embedding.weight.data.copy_(TABLE)
    model.embedding.mask.data.copy_(MASK)
    model.network = Cavity(dropped)
    rng = torch.Generator().manual_seed(0)
    t = torch.rand(64, generator=rng, dtype=torch.float64) * 0.6 + 0.3
    z_BND = torch.randn(64, N, 2, generator=rng)
    own_BNK = densities(SCHEDULE, z_BND, t, dropped)
    joint_BS = torch.einsum("bnk,snk->bs", own_BNK, PLACES.double()) + P.log()
    expected = torch.einsum("bs,snk->bnk", joint_BS.softmax(dim=1), PLACES.double())
    torch.testing.assert_close(model.logits(z_BND, t, None).softmax(dim=2).double(), expected, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_at_the_clean_end_a_token_is_read_off_without_a_network_and_mask_says_nothing() -> None:
    model = made("lcmd", likelihood=True, drop=0.2)
    t = torch.full((1,), model.schedule.start, dtype=torch.float64)
    alpha = model.schedule.alpha(t).float()
    z_1KD = alpha * model.table[None]
    found = log_likelihood(model.schedule, model.table, model.embedding.mask, z_1KD, t, torch.tensor([0.2]))
    assert torch.equal(found.argmax(dim=2), torch.arange(len(model.table))[None])
    z_11D = alpha * model.embedding.mask[None, None]
    beside = log_likelihood(model.schedule, model.table, model.embedding.mask, z_11D, t, torch.tensor([0.2]))
    assert float(beside.max() - beside.min()) < 0.01


@pytest.mark.parametrize("guidance", [0.0, 2.0])
def test_a_sampler_adds_the_likelihood_once_whatever_the_guidance(guidance: float) -> None:
    model, seen = made("lcmd", likelihood=True, drop=0.2), list[tuple[Tensor, Tensor]]()
    model.network.forward = lambda z, t, label: z.new_zeros(*z.shape[:2], len(model.table))
    with watching(lambda z, logits: seen.append((z, logits))):
        tokens = model.sample(
            torch.zeros(4, dtype=torch.int64), CounterRNG(7, "t", torch.arange(4)), sampling(3, guidance=guidance)
        )
    z, logits = seen[-1]
    t = torch.full((4,), model.schedule.start, dtype=torch.float64)
    own = log_likelihood(model.schedule, model.table, model.embedding.mask, z, t, torch.full((4,), 0.2))
    torch.testing.assert_close(logits, own)
    assert torch.equal(tokens, own.argmax(dim=2))


@pytest.mark.parametrize("drop", [0.0, 0.2])
@pytest.mark.parametrize("dropping", ["fixed", "random", "linear"])
def test_gradients_are_finite_and_reach_table_and_mask(drop: float, dropping: str) -> None:
    model, teacher = (made("lcmd", likelihood=True, drop=drop, dropping=dropping) for _ in range(2))
    tokens = torch.randint(len(model.table), (4, model.tokens), generator=torch.Generator().manual_seed(0))
    terms = model.train()(tokens, torch.zeros(4, dtype=torch.int64), CounterRNG(7, "t", torch.arange(4)), teacher)
    torch.stack(list(terms.values())).sum().backward()
    for each in (model.embedding.weight, model.embedding.mask):
        assert each.grad is not None
        assert bool(each.grad.isfinite().all())
    assert bool(model.embedding.weight.grad.any())
