"""A trained model of text and its vocabulary, for use outside the pipeline."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqlcmd.diffusion.method import Method
from vqlcmd.methods import load_method
from vqlcmd.pretrained import hub
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.artefacts import belongs, exported
from vqlcmd.runtime.errors import ConfigError, DataError, shown
from vqlcmd.text import vocabulary
from vqlcmd.text.vocabulary import Vocabulary
from vqlcmd.trained import Trained


class TextGenerator(Trained):
    """Text in blocks of N tokens: `vqlcmd.load_text("data").sample(4)`, `.infill("the quick ____ fox")`."""

    def __init__(self, method: Method, symbols: Vocabulary, about: Mapping[str, Any], device: torch.device):
        super().__init__(method, about, device)
        self.vocabulary = symbols
        self.tokens: int = about["tokens"]

    @torch.no_grad()
    def sample(self, count: int, *, seed: int | None = None, batch_size: int | None = None, **how: Any) -> list[str]:
        """`count` blocks of text. Block i depends only on (seed, i), not on the batch size; `how` as in `sampling`."""
        sampling = self.sampling(**how)
        key: int = self.about["params"]["seed"] if seed is None else seed
        found: list[str] = []
        for rows in torch.arange(count, device=self.device).split(batch_size or self.about["sampling"]["batch_size"]):
            tokens_BN = self.method.sample(None, CounterRNG(key, "sample", rows), sampling)
            found += [self.vocabulary.decode(row) for row in tokens_BN.cpu().numpy()]
        return found

    @torch.no_grad()
    def infill(self, text: str, *, blank: str = "_", count: int = 1, seed: int | None = None, **how: Any) -> list[str]:
        """`text` with each `blank` replaced by a token that the model draws, `count` times; `how` as in `sampling`.

        The text is put at the start of a block; the rest of the block is drawn as well and left out. ConfigError where
        the text is longer than a block, has no blanks or only blanks, or where the method cannot hold tokens fixed.
        """
        sampling = self.sampling(**how)
        self.method.check(sampling, infill=True)
        key: int = self.about["params"]["seed"] if seed is None else seed
        given = self._given(text, blank)
        known = torch.full((count, self.tokens), -1, device=self.device)
        known[:, : len(given)] = torch.from_numpy(given).to(self.device)
        rng = CounterRNG(key, "infill", torch.arange(count, device=self.device))
        drawn_BN = self.method.sample(None, rng, sampling, known)
        return [self.vocabulary.decode(row[: len(given)]) for row in drawn_BN.cpu().numpy()]

    def _given(self, text: str, blank: str) -> np.ndarray:
        """Tokens int64 (n,) of a text, reduced as the training text was, and -1 for each blank."""
        if len(blank) != 1:
            raise ConfigError(f"the blank is {shown(repr(blank))}, but must be one character, such as '_'")
        parts = []
        for piece in re.split(f"({re.escape(blank)}+)", text):
            if piece.startswith(blank):
                parts.append(np.full(len(piece), -1))
            elif piece:
                parts.append(self.vocabulary.encode(self.vocabulary.reduction.apply(piece)))
        given = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        if len(given) > self.tokens:
            raise ConfigError(
                f"the text has {len(given)} tokens, and a block of this model has {self.tokens}: give less of it"
            )
        if not (given < 0).any():
            raise ConfigError(f"the text has no {blank!r} to fill in: write one for each token that is to be drawn")
        if (given < 0).all():
            raise ConfigError("the text has nothing but blanks to go by: draw whole blocks with `vqlcmd sample`")
        return given


def load_text(folder: str | Path = "data", device: str | None = None) -> TextGenerator:
    """The generator in a folder that holds model/ and vocabulary.json, as `dvc repro` leaves them in data/.

    `folder` may also be a published model, as in `vqlcmd.load`, with the same errors.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    root = hub.local(folder)
    path, file = root / exported.MODEL, root / exported.VOCABULARY
    # Loaded first: for an exported model of images, the missing vocabulary is the error to report.
    symbols = vocabulary.load(file)
    exported.check(root, exported.OF_TEXT)
    method, about = load_method(path, where)
    if "text" not in about:
        raise DataError(f"{path} is no model of text: `vqlcmd.load` reads one of images")
    if "sampling" not in about:
        raise DataError(f"{path} does not say how to sample, it is of another version: `dvc repro` trains it anew")
    belongs.check_belong(belongs.tokenizer(file), belongs.model(path, about))
    if symbols.codes != about["codes"]:
        raise DataError(f"{path} draws {about['codes']} codes, and {file} has {symbols.codes}: get both again")
    return TextGenerator(method, symbols, about, where)
