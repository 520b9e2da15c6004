"""Text files as a data set: what is scanned is what is read, and paragraphs are what they look like."""

import json
import os
from pathlib import Path

import pytest

from tests.texts import write_text
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.text import corpus
from vqlcmd.text.corpus import REDUCTIONS


def test_letters_are_27_symbols_of_whatever_text() -> None:
    reduced = corpus.letters("Été, 1913: naïve—“fox”\n\tquick ﬁsh!")
    assert reduced == "ete naive fox quick fish "
    assert set(corpus.letters("".join(map(chr, range(0x250))))) <= set("abcdefghijklmnopqrstuvwxyz ")


def test_paragraphs_are_passages_and_nothing_else_is_lost() -> None:
    text = "One\ntwo.\n \t\n\n  \n1234\n\nThree."
    assert list(corpus.passages(text, REDUCTIONS["letters"])) == ["one two ", "three "]
    assert "".join(corpus.passages(text, REDUCTIONS["none"])) == "One\ntwo.\n\n1234\n\nThree.\n\n"


def test_what_was_scanned_is_read_in_an_order_of_its_own(tmp_path: Path) -> None:
    listed = write_text(tmp_path, {"b.txt": "second", "a/c.md": "first", "z.rst": "third", "x.png": "no text"})
    assert [file.path for file in listed.files] == ["a/c.md", "b.txt", "z.rst"]
    assert corpus.scan("tiny", tmp_path / "texts" / "tiny") == (listed, 1)
    assert corpus.read(tmp_path / "data" / "manifests" / "tiny.json") == listed
    assert list(corpus.texts(listed, tmp_path / "texts")) == ["first", "second", "third"]


def test_a_file_that_changed_is_named(tmp_path: Path) -> None:
    listed = write_text(tmp_path, {"a.txt": "one", "b.txt": "two"})
    (tmp_path / "texts" / "tiny" / "b.txt").write_text("owt", encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.txt is not what the manifest says: restore it, or run `vqlcmd scan tiny"):
        list(corpus.texts(listed, tmp_path / "texts"))
    (tmp_path / "texts" / "tiny" / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.txt is missing"):
        list(corpus.texts(listed, tmp_path / "texts"))
    with pytest.raises(ConfigError, match="VQLCMD_TEXT is not set: the folder that holds the folder 'tiny'"):
        list(corpus.texts(listed, None))


def test_what_is_no_utf_8_says_how_to_convert_it(tmp_path: Path) -> None:
    folder = tmp_path / "texts" / "tiny"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_bytes("café".encode("latin-1"))
    listed, _ = corpus.scan("tiny", folder)
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8 \(byte 3\): `iconv -f LATIN1"):
        list(corpus.texts(listed, tmp_path / "texts"))


@pytest.mark.parametrize(
    ("name", "folder", "says"),
    [
        ("ti ny", "texts", "'ti ny' cannot name a data set"),
        ("tiny", "nowhere", "nowhere is no folder"),
        ("tiny", "empty", "empty holds no text: files that end in .txt"),
    ],
)
def test_what_cannot_be_scanned_is_one_line(tmp_path: Path, name: str, folder: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=says.replace(".", r"\.")):
        corpus.scan(name, tmp_path / folder)


@pytest.mark.parametrize("contents", ["", "[]", '{"name": "tiny", "kind": "folder"}', '{"files": [{"path": 3}]}'])
def test_another_file_is_no_manifest_of_text(tmp_path: Path, contents: str) -> None:
    path = tmp_path / "tiny.json"
    path.write_text(contents, encoding="utf-8")
    with pytest.raises(
        DataError, match=r"tiny\.json: not a manifest of text: .*; run `vqlcmd scan tiny FOLDER --text`"
    ):
        corpus.read(path)
    path.unlink()
    with pytest.raises(DataError, match=r"tiny\.json: no manifest \(No such file"):
        corpus.read(path)


def test_a_name_of_a_file_with_the_end_of_a_line_in_it_stays_in_one_line(tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("no such names there")
    listed = write_text(tmp_path, {"a\nb.txt": "one"})
    (tmp_path / "texts" / "tiny" / "a\nb.txt").unlink()
    with pytest.raises(DataError) as caught:
        list(corpus.texts(listed, tmp_path / "texts"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.txt", "a/../../b.txt", "a\0b.txt", ""])
def test_a_manifest_leads_to_no_file_outside_of_its_folder(tmp_path: Path, path: str) -> None:
    listed = write_text(tmp_path, {"a.txt": "one"})
    values = listed.model_dump(mode="json")
    values["files"][0]["path"] = path
    manifest = tmp_path / "tiny.json"
    manifest.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(DataError, match="leads out of the folder"):
        corpus.read(manifest)
    values = listed.model_dump(mode="json") | {"folder": ".."}
    manifest.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(DataError, match="is no name of one"):
        corpus.read(manifest)
