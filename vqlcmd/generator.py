"""A trained model and its tokenizer, for use outside the pipeline."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from vqlcmd.diffusion.method import Method
from vqlcmd.methods import load_method
from vqlcmd.params import Sampling
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokenizer.pixels import to_float, to_uint8


class Generator:
    """Images from classes: `vqlcmd.load("data").sample([3, 3], steps=50)`."""

    def __init__(self, method: Method, tokenizer: vqgan.VQGAN, class_names: Sequence[str], device: torch.device):
        self.method, self.vqgan, self.class_names, self.device = method, tokenizer, tuple(class_names), device

    @torch.no_grad()
    def sample(
        self,
        classes: Sequence[int] | int,
        *,
        steps: int = 50,
        guidance: float = 0.0,
        sampler: str = "ancestral",
        temperature: float = 4.5,
        truncation: float = 0.86,
        seed: int = 0,
        batch_size: int = 256,
    ) -> Tensor:
        """Images (n, 3, S, S) uint8: one for each class in `classes`, or `classes` many where the model has none.

        Image i depends on (seed, i) and its class, not on how many are made at once.
        """
        labels = self._labels(classes, guidance)
        how = Sampling(steps, sampler, guidance, temperature, truncation)
        count = len(labels) if isinstance(labels, Tensor) else labels
        images = []
        for start in range(0, count, batch_size):
            rows = torch.arange(start, min(start + batch_size, count), device=self.device)
            label = labels[rows] if isinstance(labels, Tensor) else None
            rng = CounterRNG(seed, "sample", rows)
            tokens = self.method.sample(label, rng, how)
            images.append(to_uint8(self.vqgan.decode(tokens)).cpu())
        return torch.cat(images)

    @torch.no_grad()
    def inpaint(
        self,
        image: Tensor,
        hole: Tensor,
        class_: int | None,
        count: int,
        *,
        steps: int = 50,
        guidance: float = 0.0,
        seed: int = 0,
        whole_tokens: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """`count` images (n, 3, S, S) uint8 that differ from `image` (3, S, S) uint8 in `hole` (S, S) bool alone.

        A token is drawn anew where any of its pixels lies in the hole; with `whole_tokens` the images take all pixels
        of these tokens, which shows their edges. Beside them: what is kept of the image, the rest grey. Without
        `class_`, a model with classes uses its null class. ConfigError where the hole leaves nothing, or everything.
        """
        how = Sampling(steps, guidance=guidance)
        self.method.check(how, infill=True)
        if guidance and class_ is None:
            raise ConfigError(f"guidance {guidance} needs a class to be guided to: name one, or set it to 0")
        known_classes = len(self.class_names)
        if class_ is not None and not 0 <= class_ < known_classes:
            raise ConfigError(f"class {class_} does not exist: this model has {known_classes}, numbered from 0")
        number = known_classes if class_ is None else class_
        label = torch.full((count,), number, device=self.device) if known_classes else None
        tokens = self.vqgan.encode(to_float(image[None].to(self.device))).flatten()
        side = round(len(tokens) ** 0.5)
        open_N = torch.nn.functional.adaptive_max_pool2d(hole[None].float(), side).flatten().bool().to(self.device)
        if not open_N.any():
            raise ConfigError("the mask has no white pixel: paint white over what is to be drawn anew")
        if open_N.all():
            raise ConfigError(
                "the mask leaves nothing of the picture to go by, its white touches every token:"
                " paint less of it white, or draw whole pictures with `vqlcmd sample`"
            )
        known = torch.where(open_N, -1, tokens).expand(count, -1)
        rng = CounterRNG(seed, "inpaint", torch.arange(count, device=self.device))
        drawn = self.method.sample(label, rng, how, known)
        painted = to_uint8(self.vqgan.decode(drawn)).cpu()
        patch = image.shape[1] // side
        blocks = open_N.cpu().view(side, side).repeat_interleave(patch, 0).repeat_interleave(patch, 1)
        lost = blocks if whole_tokens else hole.cpu()
        return torch.where(lost, painted, image), torch.where(lost, 127, image).byte()

    def _labels(self, classes: Sequence[int] | int, guidance: float) -> Tensor | int:
        known = len(self.class_names)
        if not known:
            if not isinstance(classes, int):
                raise ConfigError("this model has no classes: pass a number of images")
            if guidance:
                raise ConfigError(f"guidance {guidance} needs classes, and this model has none: set it to 0")
            return classes
        if isinstance(classes, int):
            raise ConfigError(f"this model has {known} classes: pass a list of them, one for each image")
        wrong = [number for number in classes if not 0 <= number < known]
        if wrong:
            raise ConfigError(f"class {wrong[0]} does not exist: choose 0 to {known - 1}")
        return torch.tensor(classes, device=self.device)


def load(folder: str | Path = "data", device: str | None = None) -> Generator:
    """The generator in a folder that holds model/ and vqgan.safetensors, as `dvc repro` leaves them in data/."""
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    method, about = load_method(Path(folder) / "model" / "model.safetensors", where)
    return Generator(method, vqgan.load(Path(folder) / "vqgan.safetensors", where), about["class_names"], where)
