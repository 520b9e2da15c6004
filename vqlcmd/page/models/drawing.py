"""Samples and inpaintings for the page, what they cost, and what the model predicted on the way.

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
"""The pixels of tokens that are not predicted yet."""
FRAMES = 24
"""The most frames of an animation."""


@dataclass
class Onlooker:
    """Sees every prediction of a sampler: reports how many there were, keeps the beliefs, and can stop the sampler.

    A belief is the likeliest token at each position, (images, N) int64; -1 where the model has not predicted one yet.
    """

    tokens: int
    stopped: Callable[[], bool] = lambda: False
    report: Callable[[int], None] = lambda done: None
    beliefs: list[Tensor] = field(default_factory=list)
    _drawn: list[Tensor] = field(default_factory=list)
    _seen: int = 0

    def __call__(self, states: Tensor, logits_BNK: Tensor) -> None:
        """Records a prediction. Raises Stopped if a stop was asked for."""
        if self.stopped():
            raise Stopped(f"stopped after {self._seen} predictions")
        self._seen += 1
        self.report(self._seen)
        self.beliefs.append(self._belief(states, logits_BNK).cpu())

    def _belief(self, states: Tensor, logits_BNK: Tensor) -> Tensor:
        if logits_BNK.shape[1] == self.tokens:
            return logits_BNK.argmax(dim=2)
        # Autoregressive: the states are the tokens drawn so far, after a start token.
        if len(self._drawn) == self.tokens:
            self._drawn.clear()
        self._drawn.append(states[:, -1:])
        known = torch.cat(self._drawn, dim=1)[:, 1:]
        return torch.nn.functional.pad(known, (0, self.tokens - known.shape[1]), value=-1)


@dataclass(frozen=True)
class Drawn:
    """Images (n, 3, S, S) uint8, what they took, and the beliefs at each step: tokens (n, N), -1 for none.

    `nfe` is the number of passes through the network that an image took.
    """

    images: Tensor
    seconds: float
    nfe: float
    beliefs: Sequence[Tensor]

    def first(self, count: int) -> "Drawn":
        """The same of the first `count` images alone."""
        return replace(self, images=self.images[:count], beliefs=[belief[:count] for belief in self.beliefs])

    def cost(self) -> str:
        """A line with the number of images, the time, and the network calls an image."""
        count = len(self.images)
        plural = "" if count == 1 else "s"
        return f"**{count} image{plural}** · {self.seconds:.2f} s · {self.nfe:g} network calls an image"


def sample(
    model: Generator, classes: Sequence[int] | int, onlooker: Onlooker, *, seed: int | None, **how: Any
) -> Drawn:
    """Like Generator.sample, with costs and beliefs. Raises ConfigError, and Stopped if a stop was asked for."""
    start = time.perf_counter()
    with watching(onlooker), _counted(model) as passes:
        images = model.sample(classes, seed=seed, **how)
    seconds = time.perf_counter() - start
    batches = -(-len(images) // model.about["sampling"]["batch_size"])
    return Drawn(images, seconds, sum(passes) / len(images), _together(onlooker.beliefs, batches))


def fill(
    model: Generator, image: Tensor, hole: Tensor, class_: int | None, count: int, onlooker: Onlooker, **how: Any
) -> tuple[Drawn, Tensor]:
    """Like Generator.inpaint: `count` results, and the kept part of the image, with the rest grey.

    Raises ConfigError, and Stopped if a stop was asked for.
    """
    start = time.perf_counter()
    with watching(onlooker), _counted(model) as passes:
        painted, kept = model.inpaint(image, hole, class_, count, **how)
    seconds = time.perf_counter() - start
    # No beliefs: the known tokens are not predictions of the model.
    return Drawn(painted, seconds, sum(passes) / count, ()), kept


@contextmanager
def _counted(model: Generator) -> Iterator[list[int]]:
    """Yields a list of the number of images in each pass through the network inside."""
    passes: list[int] = []
    network: Any = model.method.network
    handle = network.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    try:
        yield passes
    finally:
        handle.remove()


def predictions(model: Generator, count: int, *, seed: int | None = None, **how: Any) -> int:
    """How many predictions an onlooker will see at most while `count` images are drawn."""
    batches = -(-count // model.about["sampling"]["batch_size"])
    # Some methods predict once more at the clean end.
    return batches * (model.method.steps(model.sampling(**how)) + 1)


def _together(beliefs: Sequence[Tensor], batches: int) -> list[Tensor]:
    """Joins beliefs of successive batches, which take the same steps, into those of all images at each step."""
    steps = len(beliefs) // batches
    return [torch.cat(list(beliefs[step::steps])) for step in range(steps)]


@torch.no_grad()
def frames(
    model: Generator, drawn: Drawn, most: int = FRAMES, stopped: Callable[[], bool] = lambda: False
) -> list[tuple[float, Tensor]]:
    """(t, images (n, 3, S, S) uint8) from t = 1 to 0: the beliefs of the model, and at 0 the samples.

    t is the fraction of the way from noise that is left. Of many steps, at most `most` evenly spaced ones are taken.
    Raises Stopped if `stopped` says so on the way.
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
    """Tokens (n, N), -1 for none, decoded to images (n, 3, S, S) uint8, which are grey where there is none."""
    decoded = to_uint8(model.tokenizer.decode(tokens.clamp_min(0).to(model.device), model.grid)).cpu()
    rows, columns = (side // count for side, count in zip(decoded.shape[2:], model.grid, strict=True))
    known = (tokens >= 0).view(-1, 1, *model.grid).repeat_interleave(rows, 2).repeat_interleave(columns, 3)
    return torch.where(known, decoded, GREY).byte()


def labels(model: Generator, class_: int | None, count: int) -> list[int] | int:
    """Classes of `count` images: `class_` for all or, if it is None, all in turn; `count` if there are no classes."""
    known = len(model.class_names)
    return [class_ if class_ is not None else number % known for number in range(count)] if known else count
