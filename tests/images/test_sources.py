"""The same pictures are the same images, whatever they lie in: folder, tar shards, zip archive or LMDB."""

import io
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.kinds import MAKERS, PICTURES, folder, tar, zipped
from tests.pictures import RECIPE
from vqlcmd.images import loader, manifest
from vqlcmd.images.crops import Recipe, crop_views
from vqlcmd.images.loader import Batch, load_all, open_images, stream
from vqlcmd.images.sources import ImageSource, class_order
from vqlcmd.images.sources.listing import Labels, Names
from vqlcmd.runtime.errors import DataError

LABELS = [0] * 4 + [1] * 4 + [2] * 4
WITH_CLASSES = ["folder", "tar", "zip"]
PACKED = ["tar", "zip", "lmdb"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where PICTURES lie, by kind of source. Tests only read it."""
    return {kind: make(tmp_path_factory.mktemp(kind), PICTURES) for kind, make in MAKERS.items()}


def opened(path: Path, classes: bool = True) -> ImageSource:
    return open_images(manifest.scan("set", path, classes), path.parent)


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(*fields) for fields in zip(one, other, strict=True))


@pytest.mark.parametrize("kind", MAKERS)
def test_scan_finds_the_kind_by_itself(places: dict[str, Path], kind: str) -> None:
    found = manifest.scan("set", places[kind])
    assert (found.kind, found.folder, found.image_count) == (kind, places[kind].name, 12)


@pytest.mark.parametrize("kind", WITH_CLASSES)
def test_every_kind_gives_the_same_pixels_labels_and_classes(places: dict[str, Path], kind: str) -> None:
    source = opened(places[kind])
    assert source.classes == ("ant", "bee", "cat")
    assert source.labels.tolist() == LABELS
    assert source.labels.dtype == np.int64
    assert same(load_all(source, RECIPE), load_all(opened(places["folder"]), RECIPE))


@pytest.mark.parametrize("kind", MAKERS)
def test_without_classes_only_the_labels_are_gone(places: dict[str, Path], kind: str) -> None:
    made = manifest.scan("set", places[kind], classes=False)
    source = open_images(made, places[kind].parent)
    assert made.classes == source.classes == ()
    found, wanted = load_all(source, RECIPE), load_all(opened(places["folder"]), RECIPE)
    assert found.labels.tolist() == [0] * 12
    assert same(found._replace(labels=wanted.labels), wanted)


def test_the_digits_too_may_be_without_classes() -> None:
    made = manifest.scan("digits", "sklearn-digits", classes=False)
    assert (made.classes, open_images(made, None).labels.any()) == ((), False)
    assert made.entries == manifest.scan("digits", "sklearn-digits").entries


def test_one_archive_is_a_source_as_a_folder_of_them_is(places: dict[str, Path]) -> None:
    shard = opened(places["tar"] / "set-000001.tar")
    assert shard.name(0) == "set-000001.tar/0005.jpg"
    whole = load_all(opened(places["tar"]), RECIPE)
    assert torch.equal(load_all(shard, RECIPE).images, whole.images[5:10])


@pytest.mark.parametrize("kind", MAKERS)
def test_access_in_any_order_gives_what_reading_from_front_to_back_does(places: dict[str, Path], kind: str) -> None:
    source = opened(places[kind])
    whole = load_all(source, RECIPE)
    order = [*random.Random(0).sample(range(12), 12), 3, 3]
    shuffled = list(stream(source, RECIPE, batch_size=5, broken={}, indices=order))
    assert torch.equal(torch.cat([batch.images for batch in shuffled]), whole.images[order])
    assert torch.cat([batch.labels for batch in shuffled]).tolist() == whole.labels[order].tolist()


@pytest.mark.parametrize("kind", MAKERS)
def test_workers_change_nothing_though_this_process_reads_before_and_meanwhile(
    places: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An LMDB may not be used, nor opened again, by the child of a process that has it open."""
    monkeypatch.setattr(loader, "CHUNK", 2)
    source = opened(places[kind])
    alone: Iterator[Batch] = stream(source, RECIPE, batch_size=5, broken={})
    first = next(alone)
    shared = list(stream(source, RECIPE, batch_size=5, broken={}, workers=2))
    expected = [first, *alone]
    assert [len(batch.index) for batch in shared] == [5, 5, 2]
    assert all(same(*pair) for pair in zip(shared, expected, strict=True))


def test_a_random_crop_depends_on_the_position_and_not_on_batch_order_or_worker(tmp_path: Path) -> None:
    wide = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8), (8, 1))).convert("RGB")
    file = io.BytesIO()
    wide.save(file, "PNG")
    source = opened(tar(tmp_path / "set.tar", dict.fromkeys((f"{i:02}.png" for i in range(20)), file.getvalue())))
    recipe = Recipe(8, "box", "random")
    order = [*range(19, -1, -1), 4]
    expected = np.concatenate([crop_views(wide, recipe, position) for position in order])
    assert len(np.unique(expected, axis=0)) > 15
    for workers in (0, 2):
        read = stream(source, recipe, batch_size=3, broken={}, indices=order, workers=workers)
        found = [batch.images for batch in read]
        np.testing.assert_array_equal(torch.cat(found).numpy(), expected)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_source_travels_to_another_process_as_some_tens_of_bytes_an_image(places: dict[str, Path], kind: str) -> None:
    """A worker that is not forked gets it pickled: names and places in arrays, no open files."""
    source = opened(places[kind])
    wanted = load_all(source, RECIPE)
    assert same(load_all(pickle.loads(pickle.dumps(source)), RECIPE), wanted)


def test_names_take_their_own_length_and_eight_bytes_each() -> None:
    names = Names(f"n{i // 1000:08}/{i}.JPEG".encode() for i in range(100_000))
    assert (names[0], names[99_999], len(names)) == (b"n00000000/0.JPEG", b"n00000099/99999.JPEG", 100_000)
    assert len(pickle.dumps(names)) < 100_000 * (20 + 8) + 1000


@pytest.mark.parametrize("kind", MAKERS)
def test_a_manifest_grows_with_directories_and_shards_and_not_with_images(tmp_path: Path, kind: str) -> None:
    sizes = []
    for number in (1, 30):
        many = {f"{name}/{i:02}.png": b"x" * i for name in "ab" for i in range(number)}
        path = MAKERS[kind](tmp_path / str(number), many)
        if kind == "tar":
            # All of them in one shard.
            path = tar(tmp_path / str(number) / "one.tar", many)
        manifest.write(manifest.scan("set", path), tmp_path / "set.json")
        assert manifest.read(tmp_path / "set.json").image_count == 2 * number
        sizes.append((tmp_path / "set.json").stat().st_size)
    assert sizes[1] - sizes[0] < 20, "a digit or two more in the counts"


@pytest.mark.parametrize("kind", PACKED)
def test_members_that_are_no_images_are_told_with_the_name_of_their_shard(tmp_path: Path, kind: str) -> None:
    broken = {**PICTURES, "ant/1.jpg": PICTURES["ant/1.jpg"][:-30], "bee/0.png": b"", "cat/2.webp": b"RIFF no"}
    path = MAKERS[kind](tmp_path, broken)
    source = opened(path)
    with pytest.raises(DataError) as error:
        load_all(source, RECIPE)
    message = str(error.value)
    assert message.startswith("3 of 12 images cannot be read: ")
    assert "\n" not in message
    names = {
        "tar": ["set-000000.tar/0001.jpg", "set-000000.tar/0004.png", "set-000002.tar/0010.webp"],
        "zip": ["pictures.zip/ant/1.jpg", "pictures.zip/bee/0.png", "pictures.zip/cat/2.webp"],
        "lmdb": ["data.mdb/ant/1.jpg", "data.mdb/bee/0.png", "data.mdb/cat/2.webp"],
    }[kind]
    assert all(f"{name} (" in message for name in names), message
    skipped: dict[str, str] = {}
    rest = load_all(source, RECIPE, skip_broken=True, broken=skipped)
    assert list(skipped) == names
    assert rest.index.tolist() == [0, 2, 3, 5, 6, 7, 8, 9, 11]


@pytest.mark.parametrize("kind", MAKERS)
def test_what_has_changed_since_the_scan_is_one_line_that_names_the_shard(tmp_path: Path, kind: str) -> None:
    shard = {"folder": "cat", "tar": "set-000002.tar", "zip": "pictures.zip", "lmdb": "data.mdb"}[kind]
    before = MAKERS[kind](tmp_path / "before", PICTURES)
    made = manifest.scan("set", before)
    open_images(made, before.parent)
    fewer = dict(list(PICTURES.items())[:-1])
    larger = {**PICTURES, "cat/3.png": PICTURES["cat/3.png"] + bytes(5000)}
    for number, (pictures, says) in enumerate([(fewer, "images in the manifest"), (larger, "bytes in the manifest")]):
        after = MAKERS[kind](tmp_path / str(number), pictures)
        with pytest.raises(DataError) as error:
            open_images(made, after.parent)
        message = str(error.value)
        assert f"{shard} (" in message
        assert says in message
        assert message.count(" in the manifest, ") == 1, "the others are as they were"
        assert "\n" not in message


@pytest.mark.parametrize("kind", MAKERS)
def test_a_renamed_image_is_noticed(tmp_path: Path, kind: str) -> None:
    made = manifest.scan("set", MAKERS[kind](tmp_path / "before", PICTURES), classes=False)
    order = {name.replace("cat/3", "cat/4"): contents for name, contents in PICTURES.items()}
    if kind == "tar":
        # The shards number their pictures themselves.
        order = {name.replace("3.png", "3.PNG"): contents for name, contents in PICTURES.items()}
    after = MAKERS[kind](tmp_path / "after", order)
    with pytest.raises(DataError, match=r"other names, sizes or pixels.*--no-classes` again"):
        open_images(made, after.parent)


def test_folders_that_are_numbers_are_classes_by_their_value(tmp_path: Path) -> None:
    contents = PICTURES["ant/0.png"]
    path = folder(tmp_path, {f"{name}/1.png": contents for name in ("0", "2", "10", "9")})
    source = opened(path)
    assert source.classes == ("0", "2", "9", "10")
    assert [source.classes[label] for label in source.labels] == ["0", "10", "2", "9"], "in the order of the files"
    assert class_order(["b", "10", "9"]) == ("10", "9", "b"), "not all are numbers"


def test_imagenet_as_it_is_unpacked_has_its_classes_in_the_order_of_the_synsets(tmp_path: Path) -> None:
    jpeg = PICTURES["ant/1.jpg"]
    names = ["n07753592/n07753592_9.JPEG", "n01440764/n01440764_10026.JPEG", "n01440764/n01440764_9.JPEG"]
    source = opened(folder(tmp_path, dict.fromkeys(names, jpeg)))
    assert source.classes == ("n01440764", "n07753592")
    assert source.labels.tolist() == [0, 0, 1]
    assert source.name(0) == "n01440764/n01440764_10026.JPEG"


def test_the_thousands_of_ffhq_are_no_classes_where_one_says_so(tmp_path: Path) -> None:
    png = PICTURES["ant/0.png"]
    path = folder(tmp_path, dict.fromkeys(["00000/00000.png", "00000/00999.png", "01000/01000.png", "LICENSE"], png))
    made = manifest.scan("ffhq", path, classes=False)
    assert (made.classes, [entry.path for entry in made.entries]) == ((), ["00000", "01000"])
    assert open_images(made, path.parent).labels.tolist() == [0, 0, 0]
    assert len(manifest.scan("ffhq", path).classes) == 2


def test_without_classes_images_may_lie_both_in_the_folder_and_below(tmp_path: Path) -> None:
    pictures = {"a/1.png": b"1", "a.png": b"2", "b.png": b"3"}
    path = folder(tmp_path, pictures)
    with pytest.raises(DataError, match=r"such as a\.png.*such as a\).*--no-classes"):
        manifest.scan("set", path)
    source = opened(path, classes=False)
    assert [source.name(i) for i in range(3)] == ["a.png", "a/1.png", "b.png"]


def test_archives_beside_other_images_are_an_error_and_not_half_a_data_set(tmp_path: Path) -> None:
    tar(tmp_path / "set" / "1.tar", {"1.png": b"1"})
    for other in ("loose.png", "more.zip", "sub/2.png"):
        (tmp_path / "set" / other).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / other).write_bytes(b"2")
        with pytest.raises(
            DataError, match=rf"beside \.tar archives \(such as 1\.tar\) it holds {other[:4].strip('/')}"
        ):
            manifest.scan("set", tmp_path / "set")
        (tmp_path / "set" / other).unlink()
    (tmp_path / "set" / "sub").rmdir()
    (tmp_path / "set" / "README.txt").write_text("no image")
    (tmp_path / "set" / ".2.tar").write_text("hidden")
    assert manifest.scan("set", tmp_path / "set").image_count == 1


def test_archives_without_images_are_told_with_the_accepted_endings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in its \.tar archives; accepted are \.png"):
        manifest.scan("set", tar(tmp_path / "1.tar", {"notes.txt": b"1"}))


def test_labels_are_numbers_by_the_order_of_the_classes() -> None:
    labels = Labels()
    for name in ("10", "9", "10", "2"):
        labels.append(name)
    classes, numbers = labels.ordered()
    assert (classes, numbers.tolist()) == (("2", "9", "10"), [2, 1, 2, 0])
    assert (labels.first("9"), labels.first("3")) == (1, None)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_place_whose_name_is_not_utf_8_is_one_line(tmp_path: Path, kind: str) -> None:
    """A manifest cannot hold the name: a traceback of the program that writes it."""
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    if kind == "zip":
        odd = Path(f"{zipped(tmp_path, PICTURES).rename(f'{odd}.zip')}")
    else:
        folder(tmp_path, PICTURES).rename(odd)
    with pytest.raises(DataError, match=r"the file name 'caf\\udce9(\.zip)?' is not UTF-8; rename the file"):
        manifest.scan("set", odd)


def test_an_archive_among_others_whose_name_is_not_utf_8_is_one_line(tmp_path: Path) -> None:
    """As above."""
    (tmp_path / "shards").mkdir()
    zipped(tmp_path, PICTURES).rename(tmp_path / "shards" / os.fsdecode(b"caf\xe9.zip"))
    with pytest.raises(DataError, match=r"shards: the file name 'caf\\udce9.zip' is not UTF-8"):
        manifest.scan("set", tmp_path / "shards")
