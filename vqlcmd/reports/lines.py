"""Samples as tokens -> a picture with a line for each, by the vocabulary that lies in data/."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vqlcmd import figures
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts import belongs
from vqlcmd.text import vocabulary


def draw(tokens_BN: Tensor, labels: Tensor | None, header: Mapping[str, Any], path: Path) -> None:
    """A PNG of the samples. `header`: of the training tokens.

    DataError where data/vocabulary.json is missing or another than that of the tokens.
    """
    symbols = vocabulary.load(paths.VOCABULARY)
    belongs.check_belong(belongs.tokenizer(paths.VOCABULARY), belongs.tokens(paths.TOKENS, header))
    figures.text_lines([symbols.decode(row) for row in tokens_BN.numpy()], path)
