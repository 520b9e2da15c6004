"""The training loop: it knows steps, batches and weights, but nothing about the method. Section 4 of docs/method.md."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vqlcmd.diffusion.method import Method
from vqlcmd.params import Train
from vqlcmd.rng import CounterRNG, address
from vqlcmd.runtime import distributed
from vqlcmd.runtime.errors import DataError, Interrupted
from vqlcmd.runtime.progress import Progress
from vqlcmd.runtime.resume import State
from vqlcmd.tokens.shards import Split
from vqlcmd.tokens.streaming import StreamedSplit
from vqlcmd.training.best import Best
from vqlcmd.training.curves import Curves
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
    keep: Callable[[str, Method], None] = lambda name, average: None,
    watch: Callable[[list[dict[str, float]]], None] = lambda rows: None,
    show: Callable[[int, Method], None] = lambda step, average: None,
    unit: str = "sequences",
) -> tuple[Method, list[dict[str, float]]]:
    """Train `method` in place; returns its moving average and the curves, a row per `log_every` steps.

    Continues from `state` if it holds the state of an interrupted run of the same configuration; DataError if that does
    not fit. Raises Interrupted once `stop` returns true and the state is saved, Diverged when a term is not finite.

    `micro_batch` is how many images go through the model at once, for a device that cannot hold this process's share of
    the batch; their gradients are accumulated. `keep` gets the moving average at each of `train.snapshots`, as
    "snapshots/STEP", and at the end those of the other decays in `train.ema`, as "ema-DECAY", and the one with the
    lowest held-out loss, if it is kept, as "best". `watch` gets all rows whenever there is a new one. `show` gets the
    moving average every `train.sample_every` steps and at the end, unless that is 0. `unit` names what is trained on.
    """
    averages = {decay: copy.deepcopy(method).eval().requires_grad_(False) for decay in settings.ema}
    teacher = averages[settings.ema[0]]
    optimizer = build_optimizer(method, settings)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps, settings))
    pieces = _pieces(distributed.rank_slice(settings.batch_size), micro_batch)
    largest = pieces[0][0].stop - pieces[0][0].start
    student = method if settings.table_gradients else None
    curves = Curves(
        teacher, split, heldout, seed=seed, batch_size=settings.batch_size, at_once=largest, student=student
    )
    stateful = {"method": method, "optimizer": optimizer, "scheduler": scheduler, "curves": curves}
    stateful |= {f"ema-{decay}": average for decay, average in averages.items()}
    best = Best()
    stateful |= {"best": best} if settings.keep_best else {}
    first = _resume(state, stateful)
    if curves.rows:
        watch(curves.rows)
    learned = [parameter for parameter in method.parameters() if parameter.requires_grad]
    weights = learned[0].new_tensor(list(method.weights.values()))
    model = distributed.data_parallel(method, accumulates=len(pieces) > 1)

    def backward(step: int, piece: slice, share: float) -> Tensor:
        """Accumulate gradients of the rows `piece`, a fraction `share` of this process's; returns loss and terms."""
        tokens, labels, positions = split.batch(seed, step, settings.batch_size, piece)
        rng = CounterRNG(seed, "train", positions, step)
        with torch.autocast(weights.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            terms = model(tokens, labels if method.classes else None, rng, teacher)
        means = share * torch.stack([terms[name].mean() for name in method.weights])
        loss = means @ weights
        loss.backward()
        return torch.cat([loss[None], means]).detach()

    if model is not method and first < steps:
        # DistributedDataParallel decides on the order of gradients in messages in the first pass of a static graph, and
        # the second of any. Done ahead, all steps have one order, the same in resumed and in uninterrupted runs.
        method.eval()
        for _ in range(2):
            backward(first, *pieces[0])
    with Progress("train", steps, unit=unit, quiet=distributed.rank() > 0) as progress:
        for step in range(first, steps):
            stopping = distributed.any_rank_later(stop)
            torch.manual_seed(address(seed, "dropout", step, distributed.rank()))
            method.train()
            optimizer.zero_grad(set_to_none=True)
            with distributed.local_gradients(model):
                parts = [backward(step, *piece) for piece in pieces[:-1]]
            parts.append(backward(step, *pieces[-1]))
            method.finish_step()
            norm = nn.utils.clip_grad_norm_(learned, settings.clip)
            optimizer.step()
            scheduler.step()
            for decay, average in averages.items():
                update_average(average, method, step, decay)

            curves.add(torch.stack(parts).sum(dim=0), norm)
            done, stopped = step + 1, stopping()
            if done % settings.log_every == 0 or done == steps:
                curves.close_row(done, float(scheduler.get_last_lr()[0]))
                if settings.keep_best:
                    best.consider(teacher, curves.rows[-1])
                watch(curves.rows)
            if settings.sample_every and (done % settings.sample_every == 0 or done == steps):
                show(done, teacher)
            if done in settings.snapshots:
                keep(f"snapshots/{done}", teacher)
            if stopped or done % settings.save_every == 0:
                curves.gather(done)
                state.save({"step": done} | {name: each.state_dict() for name, each in stateful.items()})
            progress.update(done, settings.batch_size, {"loss": curves.rows[-1]["loss"]} if curves.rows else None)
            if stopped and done < steps:
                raise Interrupted(
                    f"stopped at step {done} of {steps}, state saved: the same command goes on from there"
                )
    for decay in settings.ema[1:]:
        keep(f"ema-{decay}", averages[decay])
    if kept := best.method(teacher):
        keep("best", kept)
    return teacher, curves.rows


def _pieces(part: slice, micro_batch: int | None) -> list[tuple[slice, float]]:
    """The rows `part` of a batch in pieces of at most `micro_batch` rows, each with its fraction of `part`."""
    size = part.stop - part.start
    starts = range(part.start, part.stop, micro_batch or size)
    pieces = [slice(start, min(start + (micro_batch or size), part.stop)) for start in starts]
    return [(piece, (piece.stop - piece.start) / size) for piece in pieces]


@torch.no_grad()
def update_average(teacher: nn.Module, method: nn.Module, step: int, decay: float) -> None:
    """teacher <- d teacher + (1 - d) method, d growing from 0.1 to `decay`, so that early weights are forgotten."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(teacher.parameters()), list(method.parameters()), weight)


def _resume(state: State, stateful: dict[str, Any]) -> int:
    """Load the saved state into `stateful`; returns the step to continue from, 0 without a state.

    DataError where processes find different states, or the state lacks a moving average of `train.ema`.
    """
    saved = state.load()
    step = saved["step"] if saved else 0
    if distributed.any_rank(step != distributed.broadcast_object(step)):
        raise DataError(
            f"{state.directory} is at step {step} for process {distributed.rank()}, but not for all of them: "
            "VQLCMD_STATE must be a folder that all machines share"
        )
    if saved is not None:
        # `best` may start with the remaining steps; a moving average needs all of them.
        stateful = {name: each for name, each in stateful.items() if name in saved or name != "best"}
        new = sorted(name.removeprefix("ema-") for name in stateful if name not in saved)
        if new:
            raise DataError(
                f"{state.directory} holds no moving average of decay {', '.join(new)}, and the steps it is made of are "
                "over: take it out of train.ema, or begin anew"
            )
        for name, each in stateful.items():
            each.load_state_dict(saved[name])
        if distributed.rank() == 0:
            print(f"train: goes on from step {step}", flush=True)
    return step
