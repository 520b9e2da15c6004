"""The training loop: it knows steps, batches and weights, and nothing of the method. Section 4 of docs/method.md."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vqlcmd.diffusion.method import Method
from vqlcmd.params import Train
from vqlcmd.rng import CounterRNG, address
from vqlcmd.runtime import distributed
from vqlcmd.runtime.errors import DataError, Diverged, Interrupted
from vqlcmd.runtime.progress import Progress
from vqlcmd.runtime.resume import State
from vqlcmd.tokens.shards import Split
from vqlcmd.tokens.streaming import StreamedSplit
from vqlcmd.training.optimizer import build_optimizer, learning_rate


def train(
    method: Method,
    split: Split | StreamedSplit,
    heldout: Split,
    settings: Train,
    *,
    steps: int,
    seed: int,
    state: State,
    stop: Callable[[], bool] = lambda: False,
    micro_batch: int | None = None,
) -> tuple[Method, list[dict[str, float]]]:
    """Train `method` in place; returns its moving average and the curves, a row per `log_every` steps.

    Picks up from `state` where a run of the same configuration left off. Raises Interrupted once `stop` says so and the
    state is saved, Diverged when a term is not finite. `at_once`: images of the batch that go through the model
    together, for a device that cannot hold this process's share at once; their gradients add up.
    """
    teacher = copy.deepcopy(method).eval().requires_grad_(False)
    optimizer = build_optimizer(method, settings)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps, settings))
    stateful = {"method": method, "teacher": teacher, "optimizer": optimizer, "scheduler": scheduler}
    part = distributed.rank_slice(settings.batch_size)
    learned = [parameter for parameter in method.parameters() if parameter.requires_grad]
    device = learned[0].device
    first, rows, unseen = _resume(state, stateful, device)

    with Progress("train", steps, quiet=distributed.rank() > 0) as progress:
        for step in range(first, steps):
            torch.manual_seed(address(seed, "dropout", step, distributed.rank()))
            method.train()
            optimizer.zero_grad(set_to_none=True)
            summed, names = [], []
            for piece, share in _pieces(part, micro_batch):
                tokens, labels, positions = split.batch(seed, step, settings.batch_size, piece)
                rng = CounterRNG(seed, "train", positions, step)
                with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                    terms = method(tokens, labels if method.classes else None, rng, teacher)
                means = share * torch.stack([term.mean() for term in terms.values()])
                loss = means @ means.new_tensor([method.weights[name] for name in terms])
                loss.backward()
                summed.append(torch.cat([loss[None], means]).detach())
                names = ["loss", *terms, "grad_norm"]
            method.finish_step()
            figures = torch.stack(summed).sum(dim=0)
            distributed.average([figures, *(p.grad for p in learned if p.grad is not None)])
            norm = nn.utils.clip_grad_norm_(learned, settings.clip)
            optimizer.step()
            scheduler.step()
            update_average(teacher, method, step, settings.ema)

            unseen.append(torch.cat([figures, norm[None]]))
            done = step + 1
            # With several processes, asking all of them is a wait for the device: not at every step.
            asking = distributed.world() == 1 or done % 10 == 0
            stopping = asking and distributed.any_rank(stop())
            logging, saving = done % settings.log_every == 0 or done == steps, done % settings.save_every == 0
            if logging or saving or stopping:
                recent = _averages(unseen, names, done)
                if logging:
                    recent |= {"step": done, "learning_rate": float(scheduler.get_last_lr()[0])}
                    rows.append(recent | _diagnose(teacher, heldout if len(heldout) else split, seed))
                    unseen.clear()
            if saving or stopping:
                states = {name: each.state_dict() for name, each in stateful.items()}
                state.save({"step": done, "rows": rows, "unseen": unseen, **states})
            progress.update(done, settings.batch_size, {"loss": rows[-1]["loss"]} if rows else None)
            if stopping and done < steps:
                raise Interrupted(
                    f"stopped at step {done} of {steps}, state saved: the same command goes on from there"
                )
    return teacher, rows


def _pieces(part: slice, micro_batch: int | None) -> list[tuple[slice, float]]:
    """The rows `part` of a batch in pieces of at most `at_once`, each with its share of them."""
    size = part.stop - part.start
    starts = range(part.start, part.stop, micro_batch or size)
    pieces = [slice(start, min(start + (micro_batch or size), part.stop)) for start in starts]
    return [(piece, (piece.stop - piece.start) / size) for piece in pieces]


@torch.no_grad()
def update_average(teacher: nn.Module, method: nn.Module, step: int, decay: float) -> None:
    """teacher <- d teacher + (1 - d) method, d growing from 0.1 to `decay`, so that early weights are forgotten."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(teacher.parameters()), list(method.parameters()), weight)


def _averages(unseen: list[Tensor], names: list[str], done: int) -> dict[str, float]:
    """Means over the steps since the last row. The one wait for the device, here and not at every step."""
    table = torch.stack(unseen).cpu()
    broken = (~table.isfinite()).nonzero()
    if len(broken):
        when = done - len(table) + 1 + int(broken[0, 0])
        what = ", ".join(name for name, value in zip(names, table[broken[0, 0]], strict=True) if not value.isfinite())
        raise Diverged(f"step {when}: {what} is not finite; a lower train.learning_rate or train.clip may help")
    return dict(zip(names, table.mean(dim=0).tolist(), strict=True))


def _diagnose(teacher: Method, split: Split | StreamedSplit, seed: int, most: int = 256) -> dict[str, float]:
    tokens, labels = split.first(most)
    rng = CounterRNG(seed, "diagnostics", torch.arange(len(tokens), device=tokens.device))
    return teacher.diagnostics(tokens, labels if teacher.classes else None, rng)


def _resume(
    state: State, stateful: dict[str, Any], device: torch.device
) -> tuple[int, list[dict[str, float]], list[Tensor]]:
    """Step, curves, and the figures of steps that are in no row yet. DataError where processes find other states."""
    saved = state.load()
    step = saved["step"] if saved else 0
    if distributed.any_rank(step != distributed.broadcast_object(step)):
        raise DataError(
            f"{state.directory} is at step {step} for process {distributed.rank()}, but not for all of them: "
            "VQLCMD_STATE must be a folder that all machines share"
        )
    if saved is None:
        return 0, [], []
    for name, each in stateful.items():
        each.load_state_dict(saved[name])
    return saved["step"], saved["rows"], [figures.to(device) for figures in saved["unseen"]]
