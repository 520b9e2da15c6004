"""Zip archives: what is found in them, which class it has, and what is damaged is said in one line."""

import zipfile
from pathlib import Path

import pytest

from tests.images.test_tar import names, opened, problem
from tests.kinds import PICTURES, zipped
from tests.pictures import RECIPE
from vqlcmd.images import manifest
from vqlcmd.images.loader import load_all, open_images

PNG = PICTURES["ant/0.png"]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_gives_its_images_in_the_order_of_their_names_however_packed(tmp_path: Path, method: int) -> None:
    source = opened(zipped(tmp_path, PICTURES, method))
    assert names(source) == [f"pictures.zip/{name}" for name in PICTURES]
    assert load_all(source, RECIPE).labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_a_zip_with_sizes_in_64_bits_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 200)
    path = zipped(tmp_path, PICTURES)
    assert path.read_bytes().count(b"PK\x06\x06") == 1, "it has a directory in 64 bits"
    monkeypatch.undo()
    assert load_all(opened(path), RECIPE).index.tolist() == list(range(12))


def test_a_zip_behind_something_else_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path, PICTURES)
    path.write_bytes(b"a program that unpacks itself" + path.read_bytes())
    assert load_all(opened(path), RECIPE).index.tolist() == list(range(12))


def test_the_labels_of_a_zip_are_those_of_dataset_json(tmp_path: Path) -> None:
    """As StyleGAN's dataset_tool writes it; here the folders would be other classes."""
    labels = [[name, number % 11] for number, name in enumerate(PICTURES)]
    source = opened(zipped(tmp_path, PICTURES, labels=labels))
    assert source.classes == tuple(map(str, range(11)))
    assert source.labels.tolist() == [*range(11), 0]
    assert len(source) == 12, "dataset.json is no image"


@pytest.mark.parametrize("labels", [None, []])
def test_a_zip_that_says_it_has_no_labels_has_no_classes_by_its_folders(tmp_path: Path, labels: object) -> None:
    made = manifest.scan("ffhq", zipped(tmp_path, PICTURES, labels=labels))
    assert made.classes == ()
    assert open_images(made, tmp_path).labels.tolist() == [0] * 12


@pytest.mark.parametrize(
    "labels", [[["ant/0.png", [0.0, 1.0]]], [["ant/0.png"]], 3, [["ant/0.png", 1.5]], [["ant/0.png", "a/b"]]]
)
def test_labels_of_another_form_are_one_line(tmp_path: Path, labels: object) -> None:
    path = zipped(tmp_path, PICTURES, labels=labels)
    assert 'dataset.json should hold {"labels": [[image, class], ...]}' in problem(path)
    assert manifest.scan("set", path, classes=False).classes == ()


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        (b"{", "is not JSON"),
        (b"[" * 200_000, "is not JSON (nested too deep)"),
        (b'{"labels": [["ant/0.png", ' + b"9" * 5000 + b"]]}", "is not JSON (Exceeds the limit"),
        (b'{"labels": ' + b"[" * 500 + b"]" * 500 + b"}", "is nested more than 100 deep"),
    ],
)
def test_labels_that_are_no_json_are_one_line(tmp_path: Path, contents: bytes, says: str) -> None:
    path = zipped(tmp_path, PICTURES)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("dataset.json", contents)
    message = problem(path)
    assert f"dataset.json {says}" in message
    assert message.endswith("fix it there, or scan with --no-classes")
    assert len(message) < 600


def test_an_image_that_dataset_json_leaves_out_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path, PICTURES, labels=[[name, 0] for name in list(PICTURES)[1:]])
    assert "pictures.zip/ant/0.png has no label" in problem(path)


def test_a_zip_that_is_cut_short_or_something_else_is_one_line(tmp_path: Path) -> None:
    path = zipped(tmp_path, PICTURES)
    whole = path.read_bytes()
    for contents in (b"", whole[: len(whole) // 2], whole[:-10], whole[-30:], b"x" * 5000):
        path.write_bytes(contents)
        assert "no whole zip archive" in problem(path)


def test_an_encrypted_or_oddly_packed_member_is_named(tmp_path: Path) -> None:
    path = zipped(tmp_path, {"1.png": PNG}, zipfile.ZIP_LZMA)
    assert "1.png is encrypted, or packed by method 14" in problem(path)
    path = zipped(tmp_path, {"1.png": PNG})
    contents = bytearray(path.read_bytes())
    contents[contents.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(contents)
    assert "1.png is encrypted" in problem(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_bit_in_a_zip_is_a_broken_image_though_it_would_decode(tmp_path: Path, method: int) -> None:
    jpeg = PICTURES["ant/1.jpg"]
    path = zipped(tmp_path, {"1.jpg": jpeg, "2.jpg": jpeg}, method)
    source = opened(path)
    contents = bytearray(path.read_bytes())
    contents[contents.index(b"2.jpg") + len(jpeg) // 2] ^= 1
    path.write_bytes(contents)
    broken: dict[str, str] = {}
    assert load_all(source, RECIPE, skip_broken=True, broken=broken).index.tolist() == [0]
    assert list(broken) == ["pictures.zip/2.jpg"]


def test_a_name_that_is_not_the_utf_8_it_says_it_is_is_one_line(tmp_path: Path) -> None:
    """Python's zipfile raises what no one had expected: a traceback."""
    path = zipped(tmp_path, {"é/0.png": PNG})
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    assert r"it says that the name b'\xff\xfe/0.png' is UTF-8; pack it again" in problem(path)


def test_a_folder_in_a_zip_is_no_image_whatever_its_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name, contents in (("a.png/", b""), ("a.png/0.png", PNG), ("b/", b""), ("b/0.png", PNG)):
            archive.writestr(name, contents)
    source = opened(tmp_path / "set.zip")
    assert names(source) == ["set.zip/a.png/0.png", "set.zip/b/0.png"]
    assert source.classes == ("a.png", "b")
