"""What one kind of source refuses, all refuse: names that lead elsewhere, control characters, two of one name."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.images.test_tar import names, opened, problem
from tests.kinds import MAKERS, PICTURES, database, folder, tar, zipped
from vqlcmd.images import manifest
from vqlcmd.runtime.errors import DataError

PNG = PICTURES["ant/0.png"]
PACKED = {
    "tar": lambda root, pictures: tar(root / "set.tar", pictures),
    "zip": zipped,
    "lmdb": database,
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("/ant/0.png", "is absolute"),
        ("C:/ant/0.png", "is absolute"),
        ("../ant/0.png", "leads out of its folder"),
        ("ant/../../0.png", "leads out of its folder"),
        ("ant/\x1b[2J0.png", "holds a control character"),
        ("ant/0\n.png", "holds a control character"),
        ("ant/0\u2028.png", "holds a control character"),
        ("ant/" + "n" * 5000 + ".png", "is longer than 4,096 characters"),
    ],
)
def test_a_name_that_one_packed_source_refuses_all_refuse(tmp_path: Path, kind: str, name: str, says: str) -> None:
    if kind == "lmdb" and len(name) > 500:
        pytest.skip("LMDB takes no such key")
    path = PACKED[kind](tmp_path, {"ant/1.png": PNG, name: PNG})
    message = problem(path)
    assert says in message
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[2J.png", "c\x07/1.png"])
def test_a_folder_refuses_control_characters_too(tmp_path: Path, name: str) -> None:
    path = folder(tmp_path, {name: PNG})
    assert "holds a control character" in problem(path)
    assert problem(path).isprintable()


@pytest.mark.parametrize("kind", MAKERS)
def test_two_dots_within_a_name_and_spaces_of_any_kind_are_no_reason(tmp_path: Path, kind: str) -> None:
    """macOS writes a narrow no-break space into the names of screenshots."""
    pictures = (
        {"an..t/3.05\u202fPM..png": PNG, "bee/..1.png": PNG} if kind == "lmdb" else {"an..t/3.05\u202fPM.png": PNG}
    )
    assert manifest.scan("set", PACKED.get(kind, MAKERS[kind])(tmp_path, pictures)).image_count == len(pictures)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("second", ["ant/0.png", "./ant/0.png"])
def test_two_members_of_one_name_are_refused(tmp_path: Path, kind: str, second: str) -> None:
    """Both images of a tar had the label of the last one."""
    path = tmp_path / f"set.{kind}"
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            for name, contents in (("ant/0.png", PNG), (second, PICTURES["bee/0.png"])):
                member = tarfile.TarInfo(name)
                member.size = len(contents)
                archive.addfile(member, io.BytesIO(contents))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ant/0.png", PNG)
            archive.writestr(second, PNG)
    assert "ant/0.png twice; remove one" in problem(path)


def test_two_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        for name, contents in (("0.png", PNG), ("0.cls", b"ant"), ("0.cls", b"bee")):
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
    assert "it holds 0.cls twice" in problem(path)


def test_a_member_whose_name_is_a_megabyte_is_told_in_a_line(tmp_path: Path) -> None:
    assert len(problem(tar(tmp_path / "1.tar", {"a" * 10**6 + ".png": PNG}))) < 400
    assert "damaged at byte 0: a name of" in problem(tar(tmp_path / "2.tar", {"a" * 2**21 + ".png": PNG}))


def test_a_name_that_is_not_utf_8_is_told_apart_from_another_one(tmp_path: Path) -> None:
    path = database(tmp_path, {"a": PNG})
    import lmdb

    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"\xe9", PNG)
        transaction.put(b"\xe8", PNG)
    assert names(opened(path)) == ["data.mdb/a", "data.mdb/\\xe8", "data.mdb/\\xe9"]


@pytest.mark.parametrize("kind", MAKERS)
def test_a_broken_member_with_an_invisible_name_reaches_no_terminal(tmp_path: Path, kind: str) -> None:
    """A mark that turns the direction of writing is no control character, but it hides what a name ends in."""
    from tests.pictures import RECIPE
    from vqlcmd.images.loader import load_all

    if kind == "tar":
        path = tar(tmp_path / "set.tar", {"ant/\u202egnp.png": b"no picture"})
    else:
        path = MAKERS[kind](tmp_path, {"ant/\u202egnp.png": b"no picture"})
    with pytest.raises(DataError, match=r"\\u202egnp\.png \(not an image in an accepted format\)") as error:
        load_all(opened(path), RECIPE)
    assert str(error.value).isprintable()
