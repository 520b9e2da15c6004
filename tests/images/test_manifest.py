"""A manifest says which images a run saw, notices when they are others, and names no machine."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.pipeline_imports import ROOT
from vqlcmd.images.loader import open_images
from vqlcmd.images.manifest import Manifest, digest, read, scan, write
from vqlcmd.runtime import paths
from vqlcmd.runtime.errors import DataError

TRACKED = ROOT / "data" / "manifests" / "digits.json"


def picture(path: Path, side: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/1.png", "b/deep/2.JPG", "a/3.webp", "a/4.png"):
        picture(tmp_path / "set" / name)
    return tmp_path / "set"


def test_first_level_folders_are_classes_and_every_directory_is_an_entry(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("not an image")
    (folder / "a" / "png").write_text("an extension is not a name")
    manifest = scan("set", folder)
    assert (manifest.kind, manifest.folder, manifest.classes) == ("folder", "set", ("a", "b"))
    assert [(entry.path, entry.images) for entry in manifest.entries] == [("a", 2), ("b", 1), ("b/deep", 1)]
    assert manifest.image_count == 4
    assert manifest.entries[0].bytes == sum(path.stat().st_size for path in (folder / "a").glob("*.*"))


def test_images_directly_in_the_folder_have_no_classes(tmp_path: Path) -> None:
    picture(tmp_path / "2.tiff")
    picture(tmp_path / "1.Png")
    manifest = scan("loose", tmp_path)
    assert manifest.classes == ()
    assert [(entry.path, entry.images) for entry in manifest.entries] == [(".", 2)]
    source = open_images(manifest, tmp_path.parent)
    assert [source.name(i) for i in range(2)] == ["1.Png", "2.tiff"]
    assert source.labels.tolist() == [0, 0]


def test_images_both_in_the_folder_and_below_are_an_error(folder: Path) -> None:
    picture(folder / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png.*sub-folders \(such as a\); move"):
        scan("set", folder)


def test_hidden_files_and_folders_are_passed_over(folder: Path) -> None:
    expected = digest(scan("set", folder))
    picture(folder / ".cache" / "1.png")
    picture(folder / "a" / ".1.png")
    assert digest(scan("set", folder)) == expected


def test_links_are_followed_but_never_in_a_circle(folder: Path, tmp_path: Path) -> None:
    picture(tmp_path / "other" / "5.png")
    (folder / "c").symlink_to(tmp_path / "other")
    (folder / "a" / "up").symlink_to(folder)
    (tmp_path / "other" / "self").symlink_to(tmp_path / "other")
    assert [entry.path for entry in scan("set", folder).entries] == ["a", "b", "b/deep", "c"]


def test_a_link_to_nothing_is_counted_and_not_overlooked(folder: Path) -> None:
    (folder / "a" / "0.png").symlink_to(folder / "gone.png")
    assert scan("set", folder).entries[0].images == 3


def test_folders_within_each_other_without_end_are_one_line(tmp_path: Path) -> None:
    place = str(tmp_path)
    for _ in range(1200):
        place += "/a"
        os.mkdir(place)
    try:
        with pytest.raises(DataError, match="hundreds of folders within each other"):
            scan("set", tmp_path)
    finally:  # pytest's own removal of old folders would call itself as often.
        while place != str(tmp_path):
            os.rmdir(place)
            place = place[:-2]


def test_a_set_is_called_by_the_name_under_which_it_was_scanned(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert scan("set", tmp_path / "link").folder == "link"
    assert scan("set", f"{folder}/a/..").folder == "set"


@pytest.mark.parametrize("name", ["", "a b", "../a", "a/b", "ä", "a\n"])
def test_a_name_that_could_not_be_a_file_name_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot name a data set; use letters, digits, _ and - only"):
        scan(name, folder)


def test_a_source_without_images_is_told_with_the_accepted_extensions(tmp_path: Path) -> None:
    (tmp_path / "file.png").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "file.png", tmp_path / "missing"):
        with pytest.raises(DataError, match=r"\.png \.jpg \.jpeg") as error:
            scan("set", path)
        assert str(error.value).startswith(f"{path}: no")


def test_a_name_that_is_not_utf8_is_told_at_once(folder: Path) -> None:
    try:
        (folder / "a" / os.fsdecode(b"\xff.png")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    with pytest.raises(DataError, match=r"'\\udcff\.png' is not UTF-8"):
        scan("set", folder)


def test_an_unchanged_folder_opens(folder: Path) -> None:
    source = open_images(scan("set", folder), folder.parent)
    assert [source.name(i) for i in range(4)] == ["a/3.webp", "a/4.png", "b/1.png", "b/deep/2.JPG"]
    assert source.labels.tolist() == [0, 0, 1, 1]


def test_added_removed_renamed_and_changed_files_are_noticed(folder: Path) -> None:
    manifest = scan("set", folder)

    def problem() -> str:
        with pytest.raises(DataError) as error:
            open_images(manifest, folder.parent)
        message = str(error.value)
        assert f"run `vqlcmd scan set {folder}` again" in message
        return message

    picture(folder / "a" / "5.png")
    assert "a (2 images in the manifest, 3 now); restore it, or" in problem()
    (folder / "a" / "5.png").unlink()
    (folder / "a" / "4.png").rename(folder / "a" / "6.png")
    assert "a (other names, sizes or pixels);" in problem()
    (folder / "a" / "6.png").rename(folder / "a" / "4.png")
    (folder / "b" / "1.png").write_bytes(b"shorter")
    assert "b (" in problem()
    assert "bytes in the manifest, 7 now)" in problem()
    picture(folder / "b" / "1.png")
    (folder / "b" / "deep" / "2.JPG").unlink()
    assert "b/deep (holds no images now)" in problem()
    picture(folder / "b" / "deep" / "2.JPG")
    for i in range(6):
        picture(folder / f"c{i}" / "1.png")
    assert "c4 (not in the manifest); and 2 more;" in problem()


def test_digits_of_another_release_are_noticed() -> None:
    manifest = scan("digits", "sklearn-digits")
    other = manifest.entries[0].model_copy(update={"digest": "0" * 16})
    with pytest.raises(DataError, match="run `vqlcmd scan digits sklearn-digits` again"):
        open_images(manifest.model_copy(update={"entries": (other,)}), None)


def test_the_tracked_manifest_is_that_of_the_digits() -> None:
    assert read(TRACKED) == scan("digits", "sklearn-digits")


def test_equal_manifests_are_equal_bytes_and_name_no_machine(folder: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "new" / "1.json", tmp_path / "new" / "2.json"
    write(scan("set", folder), first)
    for path in folder.rglob("*.png"):
        os.utime(path, (0, 0))
    folder.parent.joinpath("moved").mkdir()
    moved = folder.rename(folder.parent / "moved" / "set")
    write(scan("set", moved), second)
    assert first.read_bytes() == second.read_bytes()
    assert str(tmp_path) not in first.read_text()
    assert read(first) == scan("set", moved)
    assert sorted(path.name for path in first.parent.iterdir()) == ["1.json", "2.json"]


def test_a_failed_write_leaves_the_old_manifest_and_no_side_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "set.json"
    write(scan("set", folder), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write(scan("other", folder), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_digest_changes_with_a_manifest(folder: Path) -> None:
    before = scan("set", folder)
    picture(folder / "a" / "4.png", side=50)
    assert len({digest(manifest) for manifest in (before, scan("set", folder), scan("other", folder))}) == 3


def test_a_missing_manifest_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run `vqlcmd scan ffhq FOLDER`"):
        read(tmp_path / "ffhq.json")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("{", "[", "Invalid JSON"),
        ('"name": "digits"', '"name": "a b"', "name String should match"),
        (
            '"kind": "digits"',
            '"kind": "drawer"',
            "kind 'drawer' is none of digits, torchvision, lmdb, tar, zip, folder",
        ),
        ('"kind": "digits"', '"kind": "folder"', "folder None does not go with kind 'folder'"),
        ('"images": 1797', '"images": "1797"', "entries.0.images Input should be a valid integer"),
        ('"images": 1797', '"pictures": 1797', "entries.0.images Field required"),
        ('"folder": null', '"folder": null, "root": "/data"', "root Extra inputs are not permitted"),
        ('  "0",\n  "1",', '  "1",\n  "0",', "classes are not sorted"),
    ],
)
def test_a_damaged_manifest_is_one_line_that_names_the_place(tmp_path: Path, old: str, new: str, problem: str) -> None:
    path = tmp_path / "digits.json"
    text = TRACKED.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(DataError) as error:
        read(path)
    message = str(error.value)
    assert problem in message
    assert "run `vqlcmd scan digits" in message
    assert "\n" not in message


LONG = "\x1b[2J" * 10**4


@pytest.mark.parametrize(
    "change",
    [
        {LONG: 1},
        {"kind": LONG},
        {"kind": "folder", "folder": LONG},
        {"copies": {LONG: 1}},
        {"entries": [{"path": LONG, "images": 1, "bytes": 1, "digest": "0"}]},
    ],
    ids=lambda change: next(iter(change))[:10],
)
def test_what_a_manifest_says_reaches_the_terminal_short_and_in_plain_characters(
    tmp_path: Path, change: dict[str, object]
) -> None:
    made = json.loads(TRACKED.read_text(encoding="utf-8"))
    (tmp_path / "set.json").write_text(json.dumps(made | change), encoding="utf-8")
    with pytest.raises(DataError) as error:
        open_images(read(tmp_path / "set.json"), None)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600


def test_a_manifest_cannot_be_changed_in_place() -> None:
    manifest: Manifest = read(TRACKED)
    with pytest.raises(ValueError, match="frozen"):
        manifest.name = "other"


def test_a_missing_manifest_in_an_experiments_copy_says_that_git_has_to_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the user sees "is not there"."""
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with pytest.raises(
        DataError, match=r"an experiment in a copy of .*holds what Git has.*`git add cats.json && git com"
    ):
        read(Path("cats.json"))
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "copy"))
    with pytest.raises(DataError) as error:
        read(Path("cats.json"))
    assert "experiment" not in str(error.value)


def test_a_relative_place_of_images_starts_where_the_user_is_and_not_in_an_experiments_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQLCMD_IMAGES", "pictures")
    assert paths.images_root() == tmp_path / "pictures"
    monkeypatch.setenv("DVC_ROOT", "/checkout")
    assert paths.images_root() == Path("/checkout/pictures")
    monkeypatch.setenv("VQLCMD_IMAGES", "/data")
    assert paths.images_root() == Path("/data")
    monkeypatch.delenv("VQLCMD_IMAGES")
    assert paths.images_root() is None
