"""Vocabularies: text to tokens and back, in a file that says what it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.text import vocabulary
from vqlcmd.text.vocabulary import KINDS, Vocabulary

PASSAGES = ["the quick brown fox, naïve 狐 🦊", "\n\njumps\tover"]


def built(kind: str, file: str | None = None) -> Vocabulary:
    return Vocabulary(KINDS[kind].build(PASSAGES, file), "none")


@pytest.fixture
def pieces(tmp_path: Path) -> str:
    """A byte-level BPE of PASSAGES."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator(PASSAGES, vocab_size=270, show_progress=False)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    return str(path)


@pytest.mark.parametrize("kind", ["characters", "bytes"])
def test_text_comes_back_from_tokens_and_from_the_file(kind: str, tmp_path: Path) -> None:
    symbols = built(kind)
    symbols.save(tmp_path / "vocabulary.json")
    again = vocabulary.load(tmp_path / "vocabulary.json")
    for text in PASSAGES:
        tokens = symbols.encode(text)
        assert tokens.dtype == np.int64
        assert 0 <= tokens.min() <= tokens.max() < symbols.codes
        assert symbols.decode(tokens) == text == again.decode(again.encode(text))
    assert (again.codes, again.reduce) == (symbols.codes, "none")


def test_a_file_of_pieces_is_kept_whole(pieces: str, tmp_path: Path) -> None:
    symbols = built("file", pieces)
    symbols.save(tmp_path / "vocabulary.json")
    Path(pieces).unlink()
    again = vocabulary.load(tmp_path / "vocabulary.json")
    assert [again.decode(again.encode(text)) for text in PASSAGES] == PASSAGES
    assert len(again.encode(PASSAGES[0])) < len(PASSAGES[0].encode())


def test_pieces_that_lose_something_are_refused(tmp_path: Path) -> None:
    """Bits per character would be those of another text."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.BertWordPieceTokenizer()
    made.train_from_iterator(["the quick brown fox jumps over naive"], vocab_size=60, show_progress=False)
    made.save(str(tmp_path / "lossy.json"))
    with pytest.raises(DataError, match=r"lossy\.json does not give back"):
        built("file", str(tmp_path / "lossy.json"))


def test_there_are_as_many_characters_as_differ() -> None:
    assert built("characters").codes == len(set("".join(PASSAGES)))
    assert built("bytes").codes == 256


def test_a_character_that_was_never_seen_is_named() -> None:
    with pytest.raises(ConfigError, match="the character 'q' is not in the vocabulary, which has ' abc'"):
        Vocabulary(KINDS["characters"].build(["a b c"], None), "letters").encode("aqb")


def test_more_characters_than_a_token_has_values_are_refused() -> None:
    everything = "".join(chr(point) for point in range(0x30000) if not 0xD800 <= point < 0xE000)
    with pytest.raises(
        ConfigError, match=r"different characters, and tokens are 16 bits: set text\.vocabulary to bytes"
    ):
        KINDS["characters"].build([everything], None)


def test_pieces_need_a_file() -> None:
    with pytest.raises(ConfigError, match=r"text\.file names none"):
        built("file")


def test_bytes_that_are_no_text_still_become_some() -> None:
    assert built("bytes").decode(np.array([0xE7, 0x8B, 97])) == "\ufffda"


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"kind": "words"},
        {"kind": ["bytes"]},
        {"reduce": "capitals"},
        {"symbols": 3},
        {"symbols": ""},
        {"symbols": "ba"},
        {"symbols": "aa"},
        {"symbols": ["a", "b"]},
    ],
)
def test_another_file_is_no_vocabulary(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    built("characters").save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change), encoding="utf-8")
    with pytest.raises(DataError, match=r"vocabulary\.json is no vocabulary \(.*\): delete it; `dvc repro` makes it"):
        vocabulary.load(path)
    path.unlink()
    with pytest.raises(DataError, match=r"vocabulary\.json is missing"):
        vocabulary.load(path)
