"""Fits a small VQGAN to images in memory: for demos, and where no published tokenizer suits.

Three acts. First an autoencoder without quantisation; then k-means over its latents makes the codebook, and encoder,
decoder and codebook settle together; at last the tokens are fixed and the decoder alone learns to paint them.

Shapes: B images, C channels, S pixels a side, D codebook dimensions, H and W the grid, N = H W tokens, K codes,
R rows: latents of many positions.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from vqlcmd.lr_schedule import warmup_cosine
from vqlcmd.runtime.errors import Diverged
from vqlcmd.tokenizer.pixels import to_float, to_uint8
from vqlcmd.tokenizer.vqgan import VQGAN, Architecture

ENCODE_BATCH = 256
LLOYD_ROUNDS = 20
ROWS_PER_CODE = 256
RAMP = 0.05
CLIP = 1.0
CONTINUOUS_FRACTION = 0.15
"""First share of the steps, in which nothing is quantised."""
SMOOTHING = 0.98
"""Memory of the codebook's moving averages, per step."""


@dataclasses.dataclass(frozen=True)
class FitSettings:
    """How to fit; `decoder_only_fraction` is a share of `steps`. params.yaml has the values: `vqgan.fit`."""

    steps: int
    batch_size: int
    learning_rate: float
    commitment: float
    decoder_only_fraction: float
    seed: int


def schedule(step: int, steps: int) -> float:
    """Factor of the learning rate: a short linear ramp, then a cosine to zero."""
    return warmup_cosine((step + 1) / (RAMP * steps + 1), math.pi * step / steps)


def distances(z_RD: Tensor, e_KD: Tensor) -> Tensor:
    """|z - e|^2 of every row to every code, less |z|^2: [R, K]."""
    return e_KD.square().sum(dim=1) - 2 * z_RD @ e_KD.T


def sums_and_counts(z_RD: Tensor, codes_R: Tensor, codes: int) -> tuple[Tensor, Tensor]:
    """Of the rows that fell to each code: their sum [K, D] and their number [K]."""
    member_RK = F.one_hot(codes_R, codes).to(z_RD.dtype)
    return member_RK.T @ z_RD, member_RK.sum(dim=0)


def k_means(z_RD: Tensor, codes: int, random: torch.Generator) -> Tensor:
    """Lloyd's algorithm: [K, D]. A centre that loses its rows moves to a random row.

    Starts from rows drawn in proportion to their squared distance from those drawn before (k-means++).
    """
    e_KD = z_RD[torch.randint(len(z_RD), (1,), generator=random).to(z_RD.device)].repeat(codes, 1)
    nearest_R = torch.full_like(z_RD[:, 0], math.inf)
    for k in range(1, codes):
        nearest_R = torch.minimum(nearest_R, (z_RD - e_KD[k - 1]).square().sum(dim=1))
        mass_R = nearest_R.double().cumsum(dim=0)
        drawn = torch.rand((), generator=random, dtype=torch.float64).to(z_RD.device) * mass_R[-1]
        e_KD[k] = z_RD[torch.searchsorted(mass_R, drawn).clamp(max=len(z_RD) - 1)]
    for _ in range(LLOYD_ROUNDS):
        sums_KD, counts_K = sums_and_counts(z_RD, distances(z_RD, e_KD).argmin(dim=1), codes)
        strays_KD = z_RD[torch.randint(len(z_RD), (codes,), generator=random).to(z_RD.device)]
        e_KD = torch.where(counts_K[:, None] > 0, sums_KD / counts_K.clamp(min=1)[:, None], strays_KD)
    return e_KD


class MovingCodebook:
    """Codes as moving averages of the latents that fall to them; a code that hardly any latent chooses starts anew."""

    def __init__(self, vqgan: VQGAN, smoothing: float) -> None:
        self.vqgan, self.smoothing = vqgan, smoothing
        self.sums_KD = vqgan.codebook.detach().clone()
        self.counts_K = torch.ones_like(self.sums_KD[:, 0])

    @torch.no_grad()
    def update(self, z_RD: Tensor, codes_R: Tensor, random: torch.Generator) -> None:
        codes = len(self.counts_K)
        sums_KD, counts_K = sums_and_counts(z_RD, codes_R, codes)
        share = codes / len(z_RD)  # counts are relative to even use, so that 1 is a code of average popularity
        self.sums_KD.lerp_(sums_KD * share, 1 - self.smoothing)
        self.counts_K.lerp_(counts_K * share, 1 - self.smoothing)
        dead_K = self.counts_K < 0.05
        strays_KD = z_RD[torch.randint(len(z_RD), (codes,), generator=random).to(z_RD.device)]
        self.sums_KD = torch.where(dead_K[:, None], strays_KD, self.sums_KD)
        self.counts_K = torch.where(dead_K, 1.0, self.counts_K)
        self.vqgan.codebook.copy_(self.sums_KD / self.counts_K[:, None])


def rows(z_BDHW: Tensor) -> Tensor:
    return z_BDHW.permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def all_latents(vqgan: VQGAN, images_BCSS: Tensor) -> Tensor:
    return torch.cat([vqgan.latents(to_float(part)) for part in images_BCSS.split(ENCODE_BATCH)])


@torch.no_grad()
def statistics(vqgan: VQGAN, images_BCSS: Tensor) -> dict[str, float]:
    """How well `images` (uint8) survive their tokens, as 8-bit pixels, and how evenly the codes are used.

    `mse` is in squared units of the full range 0..1, `psnr` in dB, `perplexity` from 1 to K, `codes_used` a share of K.
    """
    crop_views, codes = 0.0, vqgan.architecture.n_embed
    uses_K = torch.zeros(codes, dtype=torch.float64)
    for part in images_BCSS.split(ENCODE_BATCH):
        tokens_BN = vqgan.encode(to_float(part))
        uses_K += torch.bincount(tokens_BN.flatten(), minlength=codes).cpu()
        difference = to_uint8(vqgan.decode(tokens_BN)).double() - part
        crop_views += (difference / 255).square().sum().item()
    mse = crop_views / images_BCSS.numel()
    entropy = torch.special.entr(uses_K / uses_K.sum()).sum()
    return {
        "psnr": -10 * math.log10(max(mse, 1e-10)),
        "mse": mse,
        "perplexity": entropy.exp().item(),
        "codes_used": (uses_K > 0).double().mean().item(),
    }


def fit(
    images: Tensor,
    architecture: Architecture,
    settings: FitSettings,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
) -> tuple[VQGAN, dict[str, float]]:
    """A VQGAN for uint8 images [n, C, S, S], frozen, and its `statistics` on them. Runs where the images are.

    On a CPU the same seed and thread count give the same weights bit for bit. `on_step(step, terms)` sees every
    step's `reconstruction` and `commitment`. Diverged, naming the step, where the loss is not finite.
    """
    assert CONTINUOUS_FRACTION + settings.decoder_only_fraction < 1, f"no steps are left to quantise in: {settings}"
    n, random = len(images), torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        vqgan = VQGAN(architecture)
    vqgan.to(images.device).train()
    vqgan.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    vqgan.codebook.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in vqgan.parameters() if p.requires_grad], betas=(0.9, 0.99))
    quantise_from = math.floor(CONTINUOUS_FRACTION * settings.steps)
    paint_from = settings.steps - math.floor(settings.decoder_only_fraction * settings.steps)
    order = torch.empty(0, dtype=torch.int64)
    moving, tokens_nN = None, None
    for step in range(settings.steps):
        if step == quantise_from:
            enough = ROWS_PER_CODE * architecture.n_embed // architecture.grid**2 + 1
            some = images[torch.randperm(n, generator=random)[:enough].to(images.device)]
            vqgan.codebook.copy_(k_means(rows(all_latents(vqgan, some)), architecture.n_embed, random))
            moving = MovingCodebook(vqgan, SMOOTHING)
        if step == paint_from:
            tokens_nN = torch.cat([vqgan.encode(to_float(part)) for part in images.split(ENCODE_BATCH)])
        if len(order) < settings.batch_size:
            order = torch.cat([order, torch.randperm(n, generator=random)])
        batch, order = order[: settings.batch_size], order[settings.batch_size :]
        batch = batch.to(images.device)
        x_BCSS = to_float(images[batch])
        commitment = torch.zeros((), device=images.device)
        if tokens_nN is not None:
            q_BDHW = vqgan.quantize.lookup(tokens_nN[batch])
        else:
            q_BDHW = z_BDHW = vqgan.latents(x_BCSS)
            if moving is not None:
                codes_BN = vqgan.quantize.nearest(z_BDHW.detach())
                code_BDHW = vqgan.quantize.lookup(codes_BN)
                commitment = F.mse_loss(z_BDHW, code_BDHW)
                q_BDHW = z_BDHW + (code_BDHW - z_BDHW).detach()
                moving.update(rows(z_BDHW.detach()), codes_BN.flatten(), random)
        reconstruction = F.mse_loss(vqgan.decode_latents(q_BDHW), x_BCSS)
        loss = reconstruction + settings.commitment * commitment
        terms = {"reconstruction": reconstruction.item(), "commitment": commitment.item()}
        if not math.isfinite(loss.item()):
            raise Diverged(f"the loss is not finite at step {step}: {terms}; lower vqgan.fit.learning_rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vqgan.parameters(), CLIP)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(step, settings.steps)
        optimizer.step()
        if on_step is not None:
            on_step(step, terms)
    vqgan.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    vqgan.eval().requires_grad_(False)
    return vqgan, statistics(vqgan, images)
