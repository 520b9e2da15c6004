"""A small classifier of the real images, whose features replace Inception's where those weights are not available.

Shapes: B images of a batch, n images of a set, S side, C classes, D = 64 features.
"""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqlcmd.lr_schedule import warmup_cosine
from vqlcmd.runtime.errors import DataError, Diverged
from vqlcmd.runtime.safetensors_file import load_weights, save_weights

DIMENSIONS = 64
MANTISSA_BITS = 12
"""Mantissa bits that a fitted classifier's weights keep, of float32's 24."""
_ROTATIONS = 4
_LARGEST_SIDE = 64
_SMALLEST_SIDE = 8


class ProxyClassifier(nn.Module):
    """Maps uint8 images (B, 3, S, S) to `features` (B, 64) and raw `logits` (B, C); any S >= 8.

    Without classes (`num_classes` <= 1) the logits are for the four rotations of an image, and `labelled` is False.
    """

    def __init__(self, num_classes: int, width: int = 32) -> None:
        super().__init__()
        self.num_classes, self.width = num_classes, width
        self.labelled = num_classes > 1
        self.body = nn.Sequential(
            *_convolution(3, width),
            nn.MaxPool2d(2),
            *_convolution(width, 2 * width),
            nn.MaxPool2d(2),
            *_convolution(2 * width, 2 * width),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(2 * width * 4 * 4, DIMENSIONS),
        )
        self.head = nn.Linear(DIMENSIONS, num_classes if self.labelled else _ROTATIONS)

    def features(self, images: Tensor) -> Tensor:
        """Features (B, 64), without a last activation, so that both signs of a direction count in a distance."""
        x = images.to(self.head.weight.dtype) / 127.5 - 1
        if max(images.shape[2:]) > _LARGEST_SIDE:
            x = F.interpolate(x, size=(_LARGEST_SIDE, _LARGEST_SIDE), mode="area")
        return self.body(x)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(images)
        return features, self.head(features)


def fit_proxy(
    images: Tensor,
    labels: Tensor | None,
    num_classes: int,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
) -> ProxyClassifier:
    """A classifier trained on images uint8 (n, 3, S, S) and labels int64 (n,); the same for a seed on every processor.

    Training runs in float64, and the weights are then rounded to float32 with `MANTISSA_BITS` bits: processors that sum
    in different orders end about 1e-10 apart, and rounding removes that unless a weight is halfway between two values.

    With `num_classes` <= 1 the labels are not used (they may be None): the task is to tell the rotation of an image.
    Every image is shifted by up to a tenth of its side. The global random state is not changed. `on_step` gets the
    step, from 0, and its loss. Raises DataError for images or labels of the wrong type or size, and Diverged for a loss
    that is not finite.
    """
    _check(images, labels, num_classes)
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would seed the GPUs as well.
        torch.random.default_generator.manual_seed(seed)
        proxy = ProxyClassifier(num_classes).to(images.device, torch.float64)
        for module in proxy.modules():
            # Drawn again, in float64: in float32 the last bit of an initial weight depends on the processor.
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(proxy.parameters(), lr=learning_rate, weight_decay=0.01)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * _rise_and_fall((step + 1) / steps)
        index = torch.randint(len(images), (batch_size,), generator=draws).to(images.device)
        batch = _shifted(images[index], draws)
        if proxy.labelled and labels is not None:
            target = labels[index.to(labels.device)].to(images.device)
        else:
            target = torch.randint(_ROTATIONS, (batch_size,), generator=draws).to(images.device)
            batch = _rotated(batch, target)
        loss = F.cross_entropy(proxy(batch)[1], target)
        if not loss.isfinite():
            raise Diverged(f"the loss is {loss.item()} at step {step}: lower reference.proxy.learning_rate")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if on_step is not None:
            on_step(step, loss.item())
    proxy = proxy.float().eval().requires_grad_(False)
    proxy.load_state_dict({name: _rounded(tensor) for name, tensor in proxy.state_dict().items()})
    return proxy


@torch.no_grad()
def accuracy(proxy: ProxyClassifier, images: Tensor, labels: Tensor | None, batch_size: int = 256) -> float:
    """Accuracy in 0..1 on images uint8 (n, 3, S, S) and labels (n,); without classes, on their four rotations."""
    if not proxy.labelled:
        labels = torch.arange(_ROTATIONS, device=images.device).repeat_interleave(len(images))
        images = _rotated(images.repeat(_ROTATIONS, 1, 1, 1), labels)
    assert labels is not None
    assert len(labels) == len(images) > 0, (len(labels), len(images))
    told = torch.cat([proxy(batch)[1].argmax(dim=1) for batch in images.split(batch_size)])
    return (told == labels.to(told.device)).double().mean().item()


def save_proxy(proxy: ProxyClassifier, path: Path) -> None:
    """Write one safetensors file, with the proxy classifier's sizes in its header."""
    save_weights(path, "proxy", proxy.state_dict(), {"num_classes": proxy.num_classes, "width": proxy.width})


def load_proxy(path: Path) -> ProxyClassifier:
    """The classifier in a file by `save_proxy`, on the CPU, in eval mode. DataError where it is missing or damaged."""
    tensors, sizes = load_weights(path, "proxy")
    proxy = ProxyClassifier(**sizes)
    proxy.load_state_dict(tensors)
    return proxy.eval().requires_grad_(False)


def _rounded(tensor: Tensor) -> Tensor:
    """Floats rounded to `MANTISSA_BITS` mantissa bits; integers (counters) unchanged."""
    if not tensor.is_floating_point():
        return tensor
    mantissa, exponent = torch.frexp(tensor)
    steps = 2**MANTISSA_BITS
    return torch.ldexp((mantissa * steps).round() / steps, exponent)


def _convolution(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [nn.Conv2d(channels_in, channels_out, 3, padding=1), nn.BatchNorm2d(channels_out), nn.ReLU()]


def _rise_and_fall(progress: float) -> float:
    """Factor on the learning rate: linear over the first fifth, then half a cosine down to zero."""
    return warmup_cosine(progress / 0.2, math.pi * (progress - 0.2) / 0.8)


def _shifted(images: Tensor, draws: torch.Generator) -> Tensor:
    """Each image moved by its own whole number of pixels, up to a tenth of the side; the border is repeated."""
    size, side = len(images), images.shape[2]
    reach = side // 10
    offset = torch.randint(-reach, reach + 1, (2, size, 1), generator=draws).to(images.device)
    rows, columns = (torch.arange(side, device=images.device) + offset).clamp(0, side - 1)
    index = torch.arange(size, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _rotated(images: Tensor, turns: Tensor) -> Tensor:
    every = torch.stack([images.rot90(turn, (2, 3)) for turn in range(_ROTATIONS)])
    return every[turns, torch.arange(len(images), device=images.device)]


def _check(images: Tensor, labels: Tensor | None, num_classes: int) -> None:
    shape = tuple(images.shape)
    square = len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3] >= _SMALLEST_SIDE
    if images.dtype != torch.uint8 or not square or shape[0] == 0:
        raise DataError(
            f"the proxy classifier needs uint8 images (n, 3, S, S), S >= {_SMALLEST_SIDE}, got {images.dtype} {shape}"
        )
    if num_classes <= 1:
        return
    if labels is None or labels.shape != shape[:1]:
        raise DataError(
            f"the proxy classifier needs one label for each of {shape[0]} images to tell {num_classes} classes"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        low, high = int(labels.min()), int(labels.max())
        raise DataError(f"the proxy classifier needs labels in 0..{num_classes - 1}, got {low}..{high}")
