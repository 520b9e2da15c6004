"""What the page asks of a model: samples and fillings, what they cost, and what was believed on the way.

Shapes: n images, S pixels a side, N tokens, K codes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vqlcmd.diffusion.guidance import watching
from vqlcmd.generator import Generator
from vqlcmd.page.jobs import Stopped
from vqlcmd.tokenizer.pixels import to_uint8

GREY = 127
"""Where nothing is said yet."""
FRAMES = 24
"""Of an animation, at most."""


@dataclass
class Onlooker:
    """Sees every prediction of a sampler: reports how many there were, keeps what was believed, and can end it all.

    A belief is the likeliest token of each place, (images, N) int64; -1 where the model has said nothing yet.
    """

    tokens: int
    stopped: Callable[[], bool] = lambda: False
    report: Callable[[int], None] = lambda done: None
    beliefs: list[Tensor] = field(default_factory=list)
    _drawn: list[Tensor] = field(default_factory=list)
    _seen: int = 0

    def __call__(self, states: Tensor, logits_BNK: Tensor) -> None:
        """Stopped where that was asked for."""
        if self.stopped():
            raise Stopped(f"stopped after {self._seen} predictions")
        self._seen += 1
        self.report(self._seen)
        self.beliefs.append(self._belief(states, logits_BNK).cpu())

    def _belief(self, states: Tensor, logits_BNK: Tensor) -> Tensor:
        if logits_BNK.shape[1] == self.tokens:
            return logits_BNK.argmax(dim=2)
        # One place after the other: the states are what was drawn, behind a start token.
        if len(self._drawn) == self.tokens:
            self._drawn.clear()
        self._drawn.append(states[:, -1:])
        known = torch.cat(self._drawn, dim=1)[:, 1:]
        return torch.nn.functional.pad(known, (0, self.tokens - known.shape[1]), value=-1)


@dataclass(frozen=True)
class Drawn:
    """Images (n, 3, S, S) uint8, what they took, and what was believed at each step: tokens (n, N), -1 for nothing.

    `nfe` is the number of passes through the network that an image took.
    """

    images: Tensor
    seconds: float
    nfe: float
    beliefs: Sequence[Tensor]

    def first(self, count: int) -> "Drawn":
        """So many of the images alone."""
        return replace(self, images=self.images[:count], beliefs=[belief[:count] for belief in self.beliefs])

    def cost(self) -> str:
        """In a line: how many, the time, the network calls an image."""
        count = len(self.images)
        plural = "" if count == 1 else "s"
        return f"**{count} image{plural}** · {self.seconds:.2f} s · {self.nfe:g} network calls an image"


def sample(
    model: Generator, classes: Sequence[int] | int, onlooker: Onlooker, *, seed: int | None, **how: Any
) -> Drawn:
    """As Generator.sample, with costs and beliefs. ConfigError; Stopped."""
    start = time.perf_counter()
    with watching(onlooker), _counted(model) as passes:
        images = model.sample(classes, seed=seed, **how)
    seconds = time.perf_counter() - start
    batches = -(-len(images) // model.about["sampling"]["batch_size"])
    return Drawn(images, seconds, sum(passes) / len(images), _together(onlooker.beliefs, batches))


def fill(
    model: Generator, image: Tensor, hole: Tensor, class_: int | None, count: int, onlooker: Onlooker, **how: Any
) -> tuple[Drawn, Tensor]:
    """As Generator.inpaint: `count` results, and what is kept of the image, the rest grey. ConfigError; Stopped."""
    start = time.perf_counter()
    with watching(onlooker), _counted(model) as passes:
        painted, kept = model.inpaint(image, hole, class_, count, **how)
    seconds = time.perf_counter() - start
    # Tokens that are known are no belief of the model.
    return Drawn(painted, seconds, sum(passes) / count, ()), kept


@contextmanager
def _counted(model: Generator) -> Iterator[list[int]]:
    """Images in each pass through the network."""
    passes: list[int] = []
    network: Any = model.method.network
    handle = network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    try:
        yield passes
    finally:
        handle.remove()


def predictions(model: Generator, count: int, *, seed: int | None = None, **how: Any) -> int:
    """How many predictions an onlooker will see at most, of so many images."""
    batches = -(-count // model.about["sampling"]["batch_size"])
    # Some methods look once more at the clean end.
    return batches * (model.method.steps(model.sampling(**how)) + 1)


def _together(beliefs: Sequence[Tensor], batches: int) -> list[Tensor]:
    """Beliefs of one batch after the other, which take the same steps, to those of all images at each step."""
    steps = len(beliefs) // batches
    return [torch.cat(list(beliefs[step::steps])) for step in range(steps)]


@torch.no_grad()
def frames(
    model: Generator, drawn: Drawn, most: int = FRAMES, stopped: Callable[[], bool] = lambda: False
) -> list[tuple[float, Tensor]]:
    """(t, images (n, 3, S, S) uint8) from t = 1 to 0: what the model believed, and at 0 what was drawn in the end.

    t is the share of the way from noise that is left. Of many steps, at most `most` evenly spaced ones. Stopped where
    `stopped` says so on the way.
    """
    steps = len(drawn.beliefs)
    count = min(steps, max(most - 1, 1))
    chosen = sorted({round(number * (steps - 1) / max(count - 1, 1)) for number in range(count)})
    found = []
    for step in chosen:
        if stopped():
            raise Stopped("stopped after the images were drawn, without their film")
        found.append((1 - step / steps, picture(model, drawn.beliefs[step])))
    return [*found, (0.0, drawn.images)]


@torch.no_grad()
def picture(model: Generator, tokens: Tensor) -> Tensor:
    """Tokens (n, N), -1 for none, as images (n, 3, S, S) uint8; grey where there is none."""
    decoded = to_uint8(model.tokenizer.decode(tokens.clamp_min(0).to(model.device), model.grid)).cpu()
    rows, columns = (side // count for side, count in zip(decoded.shape[2:], model.grid, strict=True))
    known = (tokens >= 0).view(-1, 1, *model.grid).repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    return torch.where(known, decoded, GREY).byte()


def labels(model: Generator, class_: int | None, count: int) -> list[int] | int:
    """Classes of `count` images: all of `class_`, or without one all in turn; the number where there are none."""
    known = len(model.class_names)
    return [class_ if class_ is not None else number % known for number in range(count)] if known else count
