"""Converts text to tokens and back: characters, bytes, or the subwords of a file of the library `tokenizers`.

A vocabulary is one JSON file, which names its kind and how text is reduced before it is tokenized.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from vqlcmd.runtime.artefacts.json_file import read_json
from vqlcmd.runtime.errors import ConfigError, DataError, shown
from vqlcmd.runtime.files import atomic_write
from vqlcmd.text.corpus import REDUCTIONS, Reduction
from vqlcmd.tokens.header import MOST_CODES

FORMAT = 1
REMEDY = "delete it; `dvc repro` makes it"


class Kind(Protocol):
    """A kind of vocabulary: `encode` gives tokens int64 (n,), `decode` the text of any tokens; they are inverse."""

    name: str

    @classmethod
    def build(cls, passages: Iterable[str], file: str | None) -> Self:
        """The vocabulary of a text, or of a `tokenizers` file."""
        ...

    @classmethod
    def parse(cls, values: Any) -> Self:
        """The vocabulary from the values of `dump`. ValueError for other values."""
        ...

    def dump(self) -> Any:
        """JSON values for `parse`."""
        ...

    @property
    def codes(self) -> int:
        """K: tokens are 0 to K - 1."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """Tokens int64 (n,) of a text. ConfigError, which names it, for a character without a token."""
        ...

    def decode(self, tokens: np.ndarray) -> str:
        """The text of tokens (n,)."""
        ...


class Characters:
    """A token for each character that occurs, in Unicode order."""

    name: str = "characters"

    def __init__(self, symbols: str):
        self._symbols = symbols
        self._points = np.array([ord(symbol) for symbol in symbols], dtype=np.int64)

    @classmethod
    def build(cls, passages: Iterable[str], file: str | None) -> Self:
        found: set[str] = set()
        for passage in passages:
            found.update(passage)
        if len(found) > MOST_CODES:
            raise ConfigError(
                f"the text has {len(found)} different characters, and tokens are 16 bits: set text.vocabulary to bytes"
            )
        return cls("".join(sorted(found)))

    @classmethod
    def parse(cls, values: Any) -> Self:
        if not isinstance(values, str) or list(values) != sorted(set(values)) or not 0 < len(values) <= MOST_CODES:
            raise ValueError("no ordered text of different characters")
        return cls(values)

    def dump(self) -> str:
        return self._symbols

    @property
    def codes(self) -> int:
        return len(self._symbols)

    def encode(self, text: str) -> np.ndarray:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
        tokens = np.searchsorted(self._points, points).clip(max=self.codes - 1)
        unknown = points[self._points[tokens] != points]
        if len(unknown):
            raise ConfigError(
                f"the character {shown(repr(chr(unknown[0])))} is not in the vocabulary, which has "
                f"{shown(repr(self._symbols))}: write it with those"
            )
        return tokens

    def decode(self, tokens: np.ndarray) -> str:
        return self._points[tokens].astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")


class Bytes:
    """A token for each of the 256 bytes of UTF-8: encodes any text, whatever it was built from."""

    name: str = "bytes"

    @property
    def codes(self) -> int:
        return 256

    @classmethod
    def build(cls, passages: Iterable[str], file: str | None) -> Self:
        return cls()

    @classmethod
    def parse(cls, values: Any) -> Self:
        return cls()

    def dump(self) -> None:
        return None

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)

    def decode(self, tokens: np.ndarray) -> str:
        """The text of tokens (n,), in which invalid UTF-8 becomes the replacement character."""
        return tokens.astype(np.uint8).tobytes().decode(errors="replace")


class Subwords:
    """The subwords of a `tokenizers` file, which must decode to the exact text: bits are counted per character."""

    name: str = "file"

    def __init__(self, values: Any):
        try:
            from tokenizers import Tokenizer  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError(
                "text.vocabulary `file` needs the library tokenizers: pip install 'vqlcmd[text]'"
            ) from None
        try:
            self._tokenizer = Tokenizer.from_str(json.dumps(values))
        except Exception as error:  # The library raises Exception itself.
            raise ValueError(f"no file of the library tokenizers ({shown(error)})") from None
        self._values = values

    @classmethod
    def build(cls, passages: Iterable[str], file: str | None) -> Self:
        if file is None:
            raise ConfigError("text.vocabulary is `file`, and text.file names none: give the path of a tokenizer.json")
        path = Path(file).expanduser()
        try:
            made = cls(read_json(path, "give the path of a tokenizer.json"))
        except ValueError as error:
            raise DataError(f"{path}: {error}") from None
        if made.codes > MOST_CODES:
            raise ConfigError(f"{path} has {made.codes} pieces, and tokens are 16 bits: choose one of fewer")
        for passage in passages:
            if made.decode(made.encode(passage)) != passage:
                raise DataError(
                    f"{path} does not give back {shown(repr(passage))}, so that bits would be of another text: choose"
                    " one that does, such as a byte-level BPE"
                )
        return made

    @classmethod
    def parse(cls, values: Any) -> Self:
        return cls(values)

    def dump(self) -> Any:
        return self._values

    @property
    def codes(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def decode(self, tokens: np.ndarray) -> str:
        return self._tokenizer.decode(tokens.tolist(), skip_special_tokens=False)


KINDS: dict[str, type[Kind]] = {each.name: each for each in (Characters, Bytes, Subwords)}
"""Valid values of `text.vocabulary` in params.yaml."""


class Vocabulary:
    """One of KINDS, with the reduction of the text that it was built from."""

    def __init__(self, kind: Kind, reduce: str):
        self.kind, self.reduce = kind, reduce

    @property
    def codes(self) -> int:
        """K: tokens are 0 to K - 1."""
        return self.kind.codes

    @property
    def reduction(self) -> Reduction:
        """The reduction that text needs before `encode`."""
        return REDUCTIONS[self.reduce]

    def encode(self, text: str) -> np.ndarray:
        """Tokens int64 (n,) of a text that is already reduced. ConfigError for a character without a token."""
        return self.kind.encode(text)

    def decode(self, tokens: np.ndarray) -> str:
        """The text of tokens (n,)."""
        return self.kind.decode(tokens)

    def save(self, path: Path) -> None:
        """Write the file whole or not at all; equal vocabularies give equal bytes."""
        values = {"format": FORMAT, "kind": self.kind.name, "reduce": self.reduce, "symbols": self.kind.dump()}
        with atomic_write(path) as side:
            side.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def load(path: Path) -> Vocabulary:
    """The vocabulary in a file. DataError where the file is missing or is not a vocabulary."""
    if not path.is_file():
        raise DataError(f"{path} is missing: `dvc repro` makes it")
    values = read_json(path, REMEDY)
    try:
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        kind, reduce = values.get("kind"), values.get("reduce")
        if kind not in KINDS or reduce not in REDUCTIONS:
            raise ValueError("of no kind, or reduction, that there is")
        return Vocabulary(KINDS[kind].parse(values.get("symbols")), reduce)
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is no vocabulary ({shown(error)}): {REMEDY}") from None
