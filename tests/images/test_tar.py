"""Tar archives: what is found in them, which class it has, and what is damaged is said in one line."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.kinds import PICTURES, Layout, tar
from tests.pictures import RECIPE
from vqlcmd.images import manifest
from vqlcmd.images.loader import load_all, open_images
from vqlcmd.images.sources import ImageSource
from vqlcmd.images.sources.tar import Tar
from vqlcmd.runtime.errors import DataError

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
PNG = PICTURES["ant/0.png"]


def opened(path: Path, classes: bool = True) -> ImageSource:
    return open_images(manifest.scan("set", path, classes), path.parent)


def names(source: ImageSource) -> list[str]:
    return [source.name(i) for i in range(len(source))]


def problem(path: Path) -> str:
    """What scanning says, in one line that names the archive."""
    with pytest.raises(DataError) as error:
        manifest.scan("set", path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


@pytest.mark.parametrize("layout", FORMATS)
def test_the_headers_say_what_tarfile_reads_in_them(tmp_path: Path, layout: Layout) -> None:
    random = np.random.default_rng(0)
    sizes = [0, 1, 511, 512, 513, 70_000]
    long = "d" * 90 + "/" + "n" * 90
    members = {
        f"{long if size == 513 else 'short'}/{size}-é.png" if layout != tarfile.USTAR_FORMAT else f"{size}.png": (
            random.bytes(size)
        )
        for size in sizes
    }
    path = tar(tmp_path / "set.tar", members, layout)
    with tarfile.open(path) as archive:
        expected = [(member.name.encode(), member.offset_data, member.size) for member in archive]
    found = Tar().index(path, True)
    assert [(name, *place) for name, place in zip(found.names, found.places.tolist(), strict=True)] == expected
    with path.open("rb") as file:
        assert [Tar().read(file, place) for place in found.places.tolist()] == list(members.values())


def test_a_name_of_up_to_255_bytes_stands_in_two_fields_of_a_ustar_header(tmp_path: Path) -> None:
    name = "f" * 120 + "/" + "n" * 90 + ".png"
    assert Tar().index(tar(tmp_path / "1.tar", {name: PNG}, tarfile.USTAR_FORMAT), True).names == [name.encode()]


@pytest.mark.parametrize("size", [2**33 - 1, 2**33, 2**40])
@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_sizes_beyond_eight_gigabytes_are_read(tmp_path: Path, layout: Layout, size: int) -> None:
    """A sparse file: the contents are a hole."""
    path = tmp_path / "huge.tar"
    member, last = tarfile.TarInfo("huge.png"), tarfile.TarInfo("last.png")
    member.size = size
    headers = member.tobuf(layout)
    try:
        with path.open("wb") as file:
            file.write(headers)
            file.seek(len(headers) + -(-size // 512) * 512)
            file.write(last.tobuf(layout) + bytes(1024))
    except OSError:
        pytest.skip("this file system takes no file as large")
    found = Tar().index(path, True)
    assert (found.names, found.sizes) == ([b"huge.png", b"last.png"], [size, 0])


def test_folders_hidden_files_and_other_files_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("./", "./b/", "./b/1.PNG", "./b/._1.PNG", "./.cache/2.png", "./b/notes.txt", "./a/3.jpeg"):
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.size = 0 if name.endswith("/") else len(PNG)
            archive.addfile(member, io.BytesIO(PNG))
    source = opened(path)
    assert names(source) == ["set.tar/./b/1.PNG", "set.tar/./a/3.jpeg"], "the order of the archive"
    assert source.classes == ("a", "b")
    assert source.labels.tolist() == [1, 0]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_an_image_that_is_only_a_link_is_an_error(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("2.png")
        member.type, member.linkname = kind, "1.png"
        archive.addfile(member)
    assert "2.png is a link to another file; pack the files themselves" in problem(path)


def test_a_tar_that_is_cut_short_anywhere_is_one_line(tmp_path: Path) -> None:
    """tarfile takes some of these for whole: a header that is cut, and a member that ends where the file does."""
    whole = tar(tmp_path / "whole.tar", {"1.png": bytes(b"x" * 700), "2.png": bytes(b"y" * 10)}).read_bytes()
    for length in (0, 100, 512, 600, 1535, 1536, 1600, 2048, 2049, 2559, 2560, 2600):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        says = problem(tmp_path / "cut.tar")
        assert f"cut short: it ends at byte {length}" in says
        assert ("within " in says) == (length in (512, 600, 2048, 2049)), "of contents, and not between members"
        assert "fetch it again" in says
    (tmp_path / "cut.tar").write_bytes(whole[: 2560 + 512])
    assert manifest.scan("set", tmp_path / "cut.tar").image_count == 2, "one block of zeros is an end mark"


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = tar(tmp_path / "set.tar", {f"{i}.png": PNG for i in range(3)})
    contents = bytearray(path.read_bytes())
    second = 512 + -(-len(PNG) // 512) * 512
    contents[second + 3] ^= 1
    path.write_bytes(contents)
    assert f"damaged at byte {second}" in problem(path)
    path.write_bytes(b"no archive at all" * 100)
    assert "damaged at byte 0" in problem(path)


def test_what_lies_behind_the_end_mark_is_not_overlooked(tmp_path: Path) -> None:
    one, two = (tar(tmp_path / f"{i}.tar", {f"{i}.png": PNG}).read_bytes() for i in (1, 2))
    (tmp_path / "both.tar").write_bytes(one + two)
    assert "goes on after its end mark" in problem(tmp_path / "both.tar")


@pytest.mark.parametrize("name", ["set.tar.gz", "set.tgz", "set.tar"])
def test_a_compressed_tar_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(tar(tmp_path / "plain" / "1.tar", {"1.png": PNG}).read_bytes()))
    assert "compressed by gzip" in problem(tmp_path / name)


def test_a_shard_that_is_cut_after_the_scan_is_one_line_that_names_it(tmp_path: Path) -> None:
    shard = tar(tmp_path / "set" / "2.tar", {"2.png": PNG})
    tar(tmp_path / "set" / "1.tar", {"1.png": PNG})
    made = manifest.scan("set", tmp_path / "set")
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(DataError, match=r"2\.tar: cut short"):
        open_images(made, tmp_path)


def test_an_image_that_is_gone_from_its_archive_while_it_is_read_is_a_broken_one(tmp_path: Path) -> None:
    path = tar(tmp_path / "set.tar", {"1.png": PNG, "2.png": PNG})
    source = opened(path)
    path.write_bytes(path.read_bytes()[:1200])
    with pytest.raises(DataError, match=r"1 of 2 images .* set\.tar/2\.png \(the archive is cut short\)"):
        load_all(source, RECIPE)


def test_other_pictures_in_another_order_are_another_data_set(tmp_path: Path) -> None:
    """The order is what a position means, and by it an image is held out or not."""
    made = manifest.scan("set", tar(tmp_path / "set.tar", {"1.png": PNG, "2.png": PNG}))
    tar(tmp_path / "set.tar", {"2.png": PNG, "1.png": PNG})
    with pytest.raises(DataError, match=r"set\.tar \(other names"):
        open_images(made, tmp_path)


def test_changed_labels_are_noticed_though_names_and_sizes_are_the_same(tmp_path: Path) -> None:
    members = {"1.png": PNG, "1.cls": b"3", "2.png": PNG, "2.cls": b"4"}
    made = manifest.scan("set", tar(tmp_path / "set.tar", members))
    assert made.classes == ("3", "4")
    tar(tmp_path / "set.tar", {**members, "1.cls": b"4", "2.cls": b"3"})
    with pytest.raises(DataError, match=r"set\.tar \(other names"):
        open_images(made, tmp_path)


def test_class_numbers_keep_their_order_and_cls_wins_over_json(tmp_path: Path) -> None:
    members = {}
    for number in (11, 2, 10, 0):
        members |= {f"{number}.jpg": PNG, f"{number}.cls": str(number).encode()}
        members[f"{number}.json"] = json.dumps({"label": 99, "filename": "x"}).encode()
    source = opened(tar(tmp_path / "set.tar", members))
    assert source.classes == ("0", "2", "10", "11")
    assert source.labels.tolist() == [3, 1, 2, 0]


def test_json_without_a_label_is_no_class(tmp_path: Path) -> None:
    caption = json.dumps({"caption": "a cat", "label": None}).encode()
    assert opened(tar(tmp_path / "set.tar", {"1.jpg": PNG, "1.json": caption})).classes == ()


def test_numbers_that_python_writes_beside_a_label_are_no_matter(tmp_path: Path) -> None:
    """NaN is not JSON, but `json.dump` writes it, and data sets have it in columns that nobody asks for."""
    beside = b'{"similarity": NaN, "label": 3}'
    assert opened(tar(tmp_path / "set.tar", {"1.jpg": PNG, "1.json": beside})).classes == ("3",)


@pytest.mark.parametrize(
    ("name", "contents", "says"),
    [
        ("1.cls", b"", "gives no class but ''"),
        ("1.cls", b"\xff", "is no text"),
        ("1.json", b"{", "is not JSON"),
        ("1.json", b'{"label": ' + b"9" * 5000 + b"}", "is not JSON (Exceeds the limit"),
        ("1.json", b'{"label": ' + b"[" * 500 + b"]" * 500 + b"}", "is nested more than 100 deep"),
        ("1.json", b'{"label": ' + b"9" * 4000 + b"}", "gives no class but 9999"),
        ("1.json", b"\xff\xfe\x00", "is not JSON"),
        ("1.json", b'{"label": 1.5}', "gives no class but 1.5"),
        ("1.json", b'{"label": true}', "gives no class but True"),
        # Names of classes become parts of file names.
        ("1.cls", b"../up", "gives no class but '../up'"),
        ("1.json", b'{"label": "a\\\\b"}', "gives no class but"),
    ],
)
def test_a_label_that_is_none_is_one_line_and_no_matter_without_classes(
    tmp_path: Path, name: str, contents: bytes, says: str
) -> None:
    path = tar(tmp_path / "set.tar", {"1.png": PNG, name: contents})
    message = problem(path)
    assert f"{name} " in message
    assert says in message
    assert manifest.scan("set", path, classes=False).classes == ()


def test_an_image_without_a_label_among_others_that_have_one_is_named(tmp_path: Path) -> None:
    tar(tmp_path / "set" / "1.tar", {"1.png": PNG, "1.cls": b"0"})
    tar(tmp_path / "set" / "2.tar", {"2.png": PNG, "2.cls": b"0", "3.png": PNG})
    assert "2.tar/3.png has no label, but other images have" in problem(tmp_path / "set")
    assert opened(tmp_path / "set", classes=False).classes == ()


def test_class_folders_that_are_not_utf_8_stay_apart(tmp_path: Path) -> None:
    """Letters of Latin-1 all became the same replacement character, and so did the classes named by them."""
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name in ("é/a.png", "è/b.png", "é/c.png"):
            member = tarfile.TarInfo(name)
            member.size = len(PNG)
            archive.addfile(member, io.BytesIO(PNG))
    source = opened(path)
    assert source.classes == ("\\xe8", "\\xe9")
    assert source.labels.tolist() == [1, 0, 1]
    manifest.write(manifest.scan("set", path), tmp_path / "set.json")
    assert manifest.read(tmp_path / "set.json").classes == source.classes


def extended(record: bytes) -> bytes:
    """A tar archive of one image, with a record in an extended header before it."""
    length = next(n for n in range(len(record) + 2, 99) if len(str(n)) + 1 + len(record) == n)
    pieces = b""
    for name, kind, contents in (("x", b"x", b"%d %s" % (length, record)), ("a.png", b"0", PNG)):
        member = tarfile.TarInfo(name)
        member.type, member.size = kind, len(contents)
        pieces += member.tobuf(tarfile.USTAR_FORMAT) + contents + bytes(-len(contents) % 512)
    return pieces + bytes(1024)


def test_a_sparse_file_of_a_pax_archive_is_refused(tmp_path: Path) -> None:
    """It was taken for an image, with the map of its holes in front."""
    path = tmp_path / "set.tar"
    path.write_bytes(extended(b"comment=a\n"))
    assert names(opened(path)) == ["set.tar/a.png"]
    path.write_bytes(extended(b"GNU.sparse.major=1\n"))
    assert "a.png is stored as a sparse file" in problem(path)


def test_a_size_below_nothing_is_damage(tmp_path: Path) -> None:
    """`-3000` is a number for Python, and such a member led back to an earlier one: the scan did not end."""
    path = tmp_path / "set.tar"
    path.write_bytes(extended(b"size=-2048\n"))
    assert "damaged at byte 0: no extended header" in problem(path)
    first, last = extended(b"comment=a\n")[:1024], bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.USTAR_FORMAT))
    last[124:136], last[148:156] = b"-0000003000\0", b" " * 8
    last[148:156] = b"%06o\0 " % sum(last)
    path.write_bytes(first + last + bytes(1024))
    assert "damaged at byte 1024: no header" in problem(path)


def test_json_of_endless_depth_is_one_line(tmp_path: Path) -> None:
    """Python's own limit ended in a traceback."""
    path = tar(tmp_path / "set.tar", {"a.png": PNG, "a.json": b"[" * 200_000})
    assert "a.json is not JSON (nested too deep)" in problem(path)
