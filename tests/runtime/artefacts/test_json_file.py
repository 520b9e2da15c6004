"""JSON from outside: a value or one line, whatever the bytes."""

import json
from pathlib import Path

import pytest

from vqlcmd.runtime.artefacts.json_file import DEEPEST, parse_json, read_json
from vqlcmd.runtime.errors import DataError
from vqlcmd.runtime.safetensors_file import load_weights
from vqlcmd.tokens.header import read_header

HOSTILE = {
    "digits": b'{"format": ' + b"9" * 5000 + b"}",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deeper than needed": b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
    "no text": b"\xff\xfe{",
    "nan": b'{"format": NaN}',
    "empty": b"",
    "cut": b'{"format": 2',
    "twice": b"{} {}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_json_is_one_line_that_names_the_file_and_the_remedy(name: str, tmp_path: Path) -> None:
    """Numbers of 5,000 digits raised ValueError and nesting RecursionError, neither of them JSONDecodeError."""
    path = tmp_path / "x.json"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(DataError) as caught:
        read_json(path, "make it again")
    line = str(caught.value)
    assert line.startswith(str(path))
    assert line.endswith("make it again")
    assert line.count("\n") == 0
    assert len(line) < len(str(path)) + 200


@pytest.mark.parametrize("value", [{"a": [1, 2.5, "x", None, True]}, [], 3, json.loads("[" * 50 + "]" * 50)])
def test_what_json_says_comes_back(value: object) -> None:
    assert parse_json(json.dumps(value), "x", "y") == value


def test_a_file_that_is_missing_or_a_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing: make it"):
        read_json(tmp_path / "none.json", "make it")
    with pytest.raises(DataError, match="cannot be read"):
        read_json(tmp_path, "make it")


@pytest.mark.parametrize("name", HOSTILE)
def test_headers_of_tokens_and_of_weights_are_read_so(name: str, tmp_path: Path) -> None:
    (tmp_path / "header.json").write_bytes(HOSTILE[name])
    with pytest.raises(DataError):
        read_header(tmp_path)
    about = json.dumps({"__metadata__": {"about": HOSTILE[name].decode(errors="replace")}}).encode()
    path = tmp_path / "x.safetensors"
    for header in (HOSTILE[name], about):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(DataError):
            load_weights(path, "model")
