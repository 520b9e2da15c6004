"""Trains a VQGAN in three phases. A step is: terms, loss, step, discriminator, codes, average, log, save.

First, an autoencoder without quantisation. Then k-means over its latents initialises the codebook, and encoder, decoder
and codebook are trained together. Finally the tokens are fixed and only the decoder is trained.

Shapes: B images, C channels, S pixels a side, D codebook dimensions, N tokens, K codes, R rows: latents of many
positions.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vqlcmd.lr_schedule import warmup_cosine
from vqlcmd.params.vqgan import VqganFit
from vqlcmd.rng import CounterRNG, address
from vqlcmd.runtime import distributed
from vqlcmd.runtime.errors import ConfigError, Interrupted
from vqlcmd.runtime.progress import Progress
from vqlcmd.runtime.resume import State
from vqlcmd.tokenizer.pixels import to_float
from vqlcmd.tokenizer.vqgan import VQGAN, Architecture
from vqlcmd.tokenizer_fit import adversary
from vqlcmd.tokenizer_fit.average import Average
from vqlcmd.tokenizer_fit.codebook import ROWS_PER_CODE, Codebook, LearnedCodebook, MovingCodebook, k_means
from vqlcmd.tokenizer_fit.curves import Curves
from vqlcmd.tokenizer_fit.exchange import average_gradients, broadcast, gather_rows
from vqlcmd.tokenizer_fit.objective import Objective, continuous, quantised, rows, settled
from vqlcmd.tokenizer_fit.pictures import Order, Pictures, middle_views, random_views
from vqlcmd.tokenizer_fit.quality import at_once, psnr, reconstructions

RAMP = 0.05
CLIP = 1.0


def schedule(step: int, steps: int) -> float:
    """Factor on the learning rate: a short linear ramp, then half a cosine to zero."""
    return warmup_cosine((step + 1) / (RAMP * steps + 1), math.pi * step / steps)


def adversarial_ramp(step: int, settings: VqganFit) -> float:
    """Fraction of the adversarial term's full weight at `step`: 0 before the term starts, then linear up to 1."""
    shares = (settings.discriminator.start, settings.discriminator.warmup)
    start, warmup = (math.floor(share * settings.steps) for share in shares)
    if not settings.adversarial or step < start:
        return 0.0
    return min(1.0, (step - start + 1) / (warmup + 1))


def build(architecture: Architecture, seed: int) -> VQGAN:
    """A VQGAN with new weights from `seed`; the global random state does not change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VQGAN(architecture)


def fit(
    vqgan: VQGAN,
    pictures: Pictures,
    shown: Tensor,
    settings: VqganFit,
    *,
    seed: int,
    state: State,
    has_codes: bool = False,
    perceptual: nn.Module | None = None,
    stop: Callable[[], bool] = lambda: False,
    watch: Callable[[list[dict[str, float]], Tensor], None] = lambda rows, reconstructed: None,
) -> tuple[VQGAN, list[dict[str, float]]]:
    """Train `vqgan` in place, on its device; returns the frozen model to keep and the curves.

    The curves have a row per `log_every` steps. `shown` are images, uint8 [n, 3, S, S]: with every new row, `watch`
    gets all rows and the reconstructions of `shown`. With `has_codes` the codebook is already trained, so that there is
    no first phase and no k-means.

    Continues from `state` if it holds the state of an interrupted run of the same configuration. On a CPU, equal seeds,
    numbers of threads and numbers of processes give bit-identical weights. Raises Interrupted once `stop` returns
    true and the state is saved, Diverged where a term is not finite, and ConfigError for images too small for the
    discriminator or a batch size that is no multiple of the number of processes.
    """
    device, size = vqgan.codebook.device, shown.shape[-1]
    part = _rank_slice(settings.batch_size)
    vqgan.train().requires_grad_(True)
    vqgan.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    vqgan.codebook.requires_grad_(bool(settings.codebook))
    random = torch.Generator().manual_seed(seed)
    order = Order(pictures, settings.batch_size, part, random)
    learned = [parameter for parameter in vqgan.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learned, betas=(0.9, 0.99))
    critic = _critic(settings, size, seed, device)
    critic_optimizer = torch.optim.Adam(critic.parameters(), betas=(0.5, 0.9)) if critic else None
    objective = Objective(vqgan, settings, perceptual, critic)
    average = Average(vqgan, settings.ema)
    table = (LearnedCodebook if settings.codebook else MovingCodebook)(vqgan, settings.smoothing, settings.restart)
    curves = Curves(vqgan.architecture.n_embed)
    stateful: dict[str, Any] = {
        "vqgan": vqgan,
        "optimizer": optimizer,
        "order": order,
        "table": table,
        "curves": curves,
    }
    stateful |= {"average": average} if settings.ema else {}
    stateful |= {"critic": critic, "critic_optimizer": critic_optimizer} if critic else {}
    first = _resume(state, stateful, random)
    if first and distributed.rank() == 0:
        print(f"vqgan: goes on from step {first}", flush=True)

    quantise_from = 0 if has_codes else math.floor(settings.continuous_fraction * settings.steps)
    settled_from = settings.steps - math.floor(settings.decoder_only_fraction * settings.steps)
    with Progress("vqgan", settings.steps, quiet=distributed.rank() > 0) as progress:
        for step in range(first, settings.steps):
            stopping = distributed.any_rank_later(stop)
            if step == quantise_from and not has_codes:
                _make_codes(vqgan, pictures, size, table, random)
                average.take_codes()
            if step == settled_from:
                average.settle()
            phase = settled if step >= settled_from else quantised if step >= quantise_from else continuous
            rate, ramp = schedule(step, settings.steps), adversarial_ramp(step, settings)
            place = torch.arange(settings.batch_size)[part]
            pixels = random_views(order.batch(), size, settings.flip, CounterRNG(seed, "views", place, step))
            x_BCSS = to_float(pixels.to(device))
            coded = phase(vqgan, x_BCSS, settings)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                y_BCSS = vqgan.decode_latents(coded.q).float()
                loss, terms = objective(x_BCSS, y_BCSS, coded, ramp)
            norm = _step(optimizer, loss, learned, settings.learning_rate * rate)
            if critic and critic_optimizer and ramp:
                with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                    terms["discriminator"] = adversary.hinge(critic(x_BCSS).float(), critic(y_BCSS.detach()).float())
                rate_of_critic = settings.discriminator.learning_rate * rate
                _step(critic_optimizer, terms["discriminator"], list(critic.parameters()), rate_of_critic)
            codes_R = None if coded.codes is None else gather_rows(coded.codes)
            if coded.z is not None and codes_R is not None:
                table.update(gather_rows(coded.z), codes_R, random)
            average.update(step)

            numbers = torch.stack([loss.detach(), *(term.detach() for term in terms.values()), norm])
            distributed.average([numbers])
            named = dict(zip(("loss", *terms, "grad_norm"), numbers.tolist(), strict=True))
            curves.add(step, named, codes_R)
            done, stopped = step + 1, stopping()
            if done % settings.log_every == 0 or done == settings.steps:
                decoded = reconstructions(average.kept, shown, quantised=phase is not continuous)
                mse = ((decoded.double() - shown) / 255).square().mean().item()
                curves.close_row(done, {"learning_rate": settings.learning_rate * rate, "psnr": psnr(mse)})
                watch(curves.rows, decoded)
            if stopped or done % settings.save_every == 0:
                states = {name: each.state_dict() for name, each in stateful.items()}
                state.save({"step": done, "random": random.get_state(), **states})
            progress.update(done, settings.batch_size, {"loss": named["loss"]})
            if stopped and done < settings.steps:
                raise Interrupted(
                    f"stopped at step {done} of {settings.steps}, state saved: the same command goes on from there"
                )
    kept = average.kept
    kept.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    return kept.eval().requires_grad_(False), curves.rows


def _step(optimizer: torch.optim.Optimizer, loss: Tensor, learned: list[nn.Parameter], rate: float) -> Tensor:
    """One optimizer step on the loss averaged over processes; returns the gradient's norm before clipping."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(learned)
    norm = nn.utils.clip_grad_norm_(learned, CLIP)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return norm


@torch.no_grad()
def _make_codes(vqgan: VQGAN, pictures: Pictures, size: int, table: Codebook, random: torch.Generator) -> None:
    """Initialise the codebook by k-means over latents of random images; the same in every process."""
    codes, grid = vqgan.architecture.n_embed, size // vqgan.architecture.downsampling
    enough = ROWS_PER_CODE * codes // grid**2 + 1
    some = middle_views(pictures.read(torch.randperm(len(pictures), generator=random)[:enough]), size)
    device = vqgan.codebook.device
    z_RD = torch.cat([rows(vqgan.latents(to_float(images.to(device)))) for images in some.split(at_once(some))])
    e_KD = k_means(z_RD, codes, random)
    broadcast(e_KD)
    vqgan.codebook.copy_(vqgan.unit(e_KD))
    table.begin()


def _critic(settings: VqganFit, size: int, seed: int, device: torch.device) -> adversary.PatchDiscriminator | None:
    given = settings.discriminator
    if not settings.adversarial:
        return None
    if size < (least := adversary.smallest_side(given.layers)):
        raise ConfigError(
            f"vqgan.fit.discriminator.layers {given.layers} needs pictures of {least} pixels, and images.size is "
            f"{size}: lower it"
        )
    return adversary.build(given.channels, given.layers, address(seed, "discriminator")).to(device)


def _rank_slice(batch_size: int) -> slice:
    if batch_size % distributed.world():
        raise ConfigError(
            f"vqgan.fit.batch_size {batch_size} must be a multiple of the {distributed.world()} processes: change one"
        )
    return distributed.rank_slice(batch_size)


def _resume(state: State, stateful: dict[str, Any], random: torch.Generator) -> int:
    """Load the saved state into `stateful` and `random`; returns the step to continue from, 0 without a state."""
    saved = state.load()
    if saved is None:
        return 0
    random.set_state(saved["random"])
    for name, each in stateful.items():
        each.load_state_dict(saved[name])
    return saved["step"]
