"""A trained model and its tokenizer, for use outside the pipeline."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from vqlcmd.diffusion.method import Method
from vqlcmd.images.crops import Recipe
from vqlcmd.methods import REMEDY, load_method
from vqlcmd.params import Images
from vqlcmd.params.errors import rule
from vqlcmd.pretrained import hub
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.artefacts import belongs, exported
from vqlcmd.runtime.errors import ConfigError, DataError, shown, shown_repr
from vqlcmd.tokenizer import Tokenizer
from vqlcmd.tokenizer import load as load_tokenizer
from vqlcmd.tokenizer.pixels import to_float, to_uint8
from vqlcmd.tokens.header import grid_of
from vqlcmd.trained import Trained

OF_TEXT = "`vqlcmd.load_text` reads it, and `vqlcmd infill` and `vqlcmd sample --out FILE.txt` draw from it"


class Generator(Trained):
    """Images from classes: `vqlcmd.load("data").sample([3, 3], steps=50)`.

    `about` is the metadata of the model's file. Sampling settings that are not given are those of params.yaml in the
    model's training.
    """

    def __init__(self, method: Method, tokenizer: Tokenizer, about: Mapping[str, Any], device: torch.device):
        super().__init__(method, about, device)
        self.tokenizer = tokenizer
        self.class_names = tuple(about["class_names"])
        self.grid: tuple[int, int] = tuple(about["grid"])

    @torch.no_grad()
    def sample(
        self,
        classes: Sequence[int | str] | int,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        precision: str | None = None,
        seed: int | None = None,
        batch_size: int | None = None,
        **own: Any,
    ) -> Tensor:
        """Images (n, 3, S, S) uint8: one for each class in `classes`, or `classes` many where the model has none.

        A class is given by its number, from 0, or its name. Image i depends only on (seed, i) and its class, not on the
        batch size. Settings that are None are those of training; `own` are the method's own, such as MaskGIT's
        `temperature` and VQ-Diffusion's `truncation`. `precision`, of network and decoder, is float32, tf32 or bf16.
        """
        how = self.sampling(steps=steps, guidance=guidance, sampler=sampler, precision=precision, **own)
        key: int = self.about["params"]["seed"] if seed is None else seed
        at_once: int = batch_size or self.about["sampling"]["batch_size"]
        labels = self._labels(classes, how.guidance)
        count = len(labels) if isinstance(labels, Tensor) else labels
        images = []
        for start in range(0, count, at_once):
            rows = torch.arange(start, min(start + at_once, count), device=self.device)
            label = labels[rows] if isinstance(labels, Tensor) else None
            rng = CounterRNG(key, "sample", rows)
            tokens = self.method.sample(label, rng, how)
            images.append(to_uint8(self.tokenizer.decode(tokens, self.grid, precision=how.precision)).cpu())
        return torch.cat(images)

    @torch.no_grad()
    def inpaint(
        self,
        image: Tensor,
        hole: Tensor,
        class_: int | str | None,
        count: int,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        precision: str | None = None,
        seed: int | None = None,
        whole_tokens: bool = False,
        **own: Any,
    ) -> tuple[Tensor, Tensor]:
        """`count` images (n, 3, S, S) uint8 that equal `image` (3, S, S) uint8 outside of `hole` (S, S) bool.

        Also returns `image` with the pixels that are replaced in grey. A token is resampled if any of its pixels is in
        the hole; with `whole_tokens` all pixels of such tokens are replaced, which shows their edges. The image is
        encoded in float32, whatever the `precision` of network and decoder. Without `class_`, a model with classes uses
        its null class. ConfigError where the hole is empty or touches every token.
        """
        # The default guidance needs a class, so it is off where none is given.
        guidance = 0.0 if guidance is None and class_ is None else guidance
        how = self.sampling(steps=steps, guidance=guidance, sampler=sampler, precision=precision, **own)
        self.method.check(how, infill=True)
        key: int = self.about["params"]["seed"] if seed is None else seed
        if guidance and class_ is None:
            raise ConfigError(f"guidance {guidance} needs a class to be guided to: name one, or set it to 0")
        known_classes = len(self.class_names)
        number = known_classes if class_ is None else self.class_number(class_)
        label = torch.full((count,), number, device=self.device) if known_classes else None
        height, width = image.shape[1:]
        if self.tokenizer.grid(height, width) != self.grid:
            rows, columns = self.grid
            raise ConfigError(
                f"an image of {height} x {width} pixels does not give this model's {rows} x {columns} tokens"
            )
        tokens = self.tokenizer.encode(to_float(image[None].to(self.device))).flatten()
        open_N = torch.nn.functional.adaptive_max_pool2d(hole[None].float(), self.grid).flatten().bool().to(self.device)
        if not open_N.any():
            raise ConfigError("the mask has no white pixel: paint white over what is to be drawn anew")
        if open_N.all():
            raise ConfigError(
                "the mask leaves nothing of the picture to go by, its white touches every token:"
                " paint less of it white, or draw whole pictures with `vqlcmd sample`"
            )
        known = torch.where(open_N, -1, tokens).expand(count, -1)
        rng = CounterRNG(key, "inpaint", torch.arange(count, device=self.device))
        drawn = self.method.sample(label, rng, how, known)
        painted = to_uint8(self.tokenizer.decode(drawn, self.grid, precision=how.precision)).cpu()
        patches = [pixels // tokens for pixels, tokens in zip((height, width), self.grid, strict=True)]
        blocks = open_N.cpu().view(self.grid).repeat_interleave(patches[0], 0).repeat_interleave(patches[1], 1)
        lost = blocks if whole_tokens else hole.cpu()
        return torch.where(lost, painted, image), torch.where(lost, 127, image).byte()

    def class_number(self, class_: int | str) -> int:
        """The number of a class, from its number or its name. ConfigError where there is no such class."""
        known = len(self.class_names)
        if not known:
            raise ConfigError(f"class {shown(class_)}: this model has no classes, so name none")
        if isinstance(class_, str):
            if class_ in self.class_names:
                return self.class_names.index(class_)
            close = difflib.get_close_matches(class_, self.class_names, n=1) or self.class_names[:3]
            raise ConfigError(
                f"no class of this model is called {shown(class_)}: it has {known}, such as"
                f" {', '.join(shown(name, 40) for name in close)}"
            )
        if not 0 <= class_ < known:
            raise ConfigError(f"class {shown(class_)} does not exist: choose 0 to {known - 1}, or a class's name")
        return int(class_)

    def _labels(self, classes: Sequence[int | str] | int, guidance: float) -> Tensor | int:
        known = len(self.class_names)
        if not known:
            if not isinstance(classes, int):
                raise ConfigError("this model has no classes: pass a number of images")
            if guidance:
                raise ConfigError(f"guidance {guidance} needs classes, and this model has none: set it to 0")
            return classes
        if isinstance(classes, int):
            raise ConfigError(f"this model has {known} classes: pass a list of them, one for each image")
        if isinstance(classes, str):
            raise ConfigError(f"{shown_repr(classes)} is one class: pass a list of classes, one for each image")
        return torch.tensor([self.class_number(each) for each in classes], dtype=torch.int64, device=self.device)


def recipe(about: Mapping[str, Any]) -> Recipe:
    """The image preprocessing that a model's file records, for a single image. DataError where it records none."""
    # Mirroring and skipping broken images concern a data set, not a single image.
    settings = {"flip": False, "skip_broken": False, **about.get("images", {})}
    try:
        return Recipe.of(**Images.model_validate(settings).model_dump()).deterministic()
    except ValidationError as error:
        problem = error.errors()[0]
        key = shown(".".join(("images", *map(str, problem["loc"]))))
        version = shown(about.get("vqlcmd", "an earlier one"), 64)
        raise DataError(
            f"the model does not say how pictures were prepared, it is of another version, {version} (`{key}`: "
            f"{rule(problem)}): {REMEDY}"
        ) from None


def load(folder: str | Path = "data", device: str | None = None) -> Generator:
    """The generator in a folder that holds model/ and vqgan.safetensors, as `dvc repro` leaves them in data/.

    `folder` may also be a published model, "hf://USER/NAME" or "hf://USER/NAME@COMMIT". DataError where a file is
    missing or damaged, where the two do not belong together, or where a file of an exported folder has another digest.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    root = hub.local(folder)
    if (root / exported.VOCABULARY).is_file() and not (root / exported.TOKENIZER).is_file():
        raise DataError(f"{root} is a model of text: {OF_TEXT}")
    exported.check(root)
    path, tokenizer = root / exported.MODEL, root / exported.TOKENIZER
    method, about = load_method(path, where)
    if "text" in about:
        raise DataError(f"{path} is a model of text: {OF_TEXT}")
    if "sampling" not in about:
        raise DataError(f"{path} does not say how to sample, it is of another version: `dvc repro` trains it anew")
    about["grid"] = grid_of(about, path)
    loaded = load_tokenizer(tokenizer, where)
    belongs.check_belong(belongs.tokenizer(tokenizer), belongs.model(path, about))
    if loaded.codes != about["codes"]:
        raise DataError(f"{path} draws {about['codes']} codes, and {tokenizer} has {loaded.codes}: get both again")
    return Generator(method, loaded, about, where)
