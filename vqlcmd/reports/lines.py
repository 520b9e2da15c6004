"""Samples as tokens -> a picture with a line of text for each, by the vocabulary in data/."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vqlcmd import figures
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.text import vocabulary


def draw(tokens_BN: Tensor, labels: Tensor | None, header: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG of the samples. `header` is that of the training tokens.

    Raises DataError if data/vocabulary.json is missing, or is not the vocabulary of the tokens.
    """
    symbols = vocabulary.load(paths.VOCABULARY)
    belongs.check_belong(belongs.tokenizer(paths.VOCABULARY), belongs.tokens(paths.TOKENS, header))
    figures.text_lines([symbols.decode(row) for row in tokens_BN.numpy()], path)
