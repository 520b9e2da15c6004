"""Which classes the images of an archive have: labels, or folders; and what does not fit together is one line."""

import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.images.test_tar import opened, problem
from tests.kinds import PICTURES, tar, zipped
from tests.pictures import RECIPE
from vqlcmd.images.loader import load_all

PNG = PICTURES["ant/0.png"]
BELOW = {f"things/{name}": contents for name, contents in PICTURES.items()}
MAKE: dict[str, Any] = {"tar": lambda root, pictures: tar(root / "set.tar", pictures), "zip": zipped}


@pytest.mark.parametrize("kind", MAKE)
@pytest.mark.parametrize("prefix", ["", "./"])
def test_the_one_folder_that_holds_everything_is_no_class(tmp_path: Path, kind: str, prefix: str) -> None:
    """An archive of a folder had one class, called like the folder."""
    source = opened(MAKE[kind](tmp_path, {prefix + name: contents for name, contents in BELOW.items()}))
    assert source.classes == ("ant", "bee", "cat")
    assert source.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("kind", MAKE)
def test_images_directly_in_the_one_folder_have_no_classes_and_some_there_are_an_error(
    tmp_path: Path, kind: str
) -> None:
    assert opened(MAKE[kind](tmp_path / "1", {"things/0.png": PNG, "things/1.png": PNG})).classes == ()
    mixed = MAKE[kind](tmp_path / "2", {"things/0.png": PNG, "things/ant/1.png": PNG})
    assert "images lie both directly in it" in problem(mixed)


def test_archives_with_one_folder_each_have_a_class_each(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        tar(tmp_path / "set" / f"{name}.tar", {f"{name}/0.png": PNG})
    assert opened(tmp_path / "set").classes == ("ant", "bee")


@pytest.mark.parametrize("kind", MAKE)
def test_a_backslash_in_a_name_parts_folders(tmp_path: Path, kind: str) -> None:
    """As programs of Windows pack: there were no classes."""
    source = opened(MAKE[kind](tmp_path, {name.replace("/", "\\"): contents for name, contents in PICTURES.items()}))
    assert source.classes == ("ant", "bee", "cat")
    assert load_all(source, RECIPE).labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_dataset_json_may_lie_in_the_one_folder_and_use_backslashes(tmp_path: Path) -> None:
    labels = [[name.replace("/", "\\"), number % 2] for number, name in enumerate(PICTURES)]
    path = zipped(tmp_path, BELOW)
    with zipfile.ZipFile(path, "a") as archive:
        import json

        archive.writestr("things/dataset.json", json.dumps({"labels": labels}))
    assert opened(path).classes == ("0", "1")
    assert opened(path).labels.tolist() == [0, 1] * 6


def test_a_dataset_json_that_names_none_of_the_images_is_an_error_with_examples(tmp_path: Path) -> None:
    """It was passed over, and the folders were the classes."""
    message = problem(zipped(tmp_path, PICTURES, labels=[["img00000000.png", 3]]))
    assert "names 1 images, such as img00000000.png, but none of those in the archive, such as ant/0.png" in message


def test_a_dataset_json_that_names_an_image_twice_is_an_error(tmp_path: Path) -> None:
    labels = [[name, 0] for name in PICTURES]
    assert "names an image twice" in problem(zipped(tmp_path, PICTURES, labels=[*labels, ["ant/0.png", 1]]))


def test_labels_in_a_tar_that_belong_to_no_image_are_an_error_with_examples(tmp_path: Path) -> None:
    """The folders were the classes, or there were none."""
    message = problem(tar(tmp_path / "set.tar", {"0.left.png": PNG, "0.cls": b"ant", "1.left.png": PNG}))
    assert "it holds labels, such as that of 0, but none of an image, such as 0.left.png" in message


@pytest.mark.parametrize("label", ["a" * 300, "a\x1b[2J", "a/b"])
def test_a_label_that_is_no_name_is_told_short_and_in_plain_characters(tmp_path: Path, label: str) -> None:
    message = problem(tar(tmp_path / "set.tar", {"0.png": PNG, "0.cls": label.encode()}))
    assert "gives no class but" in message
    assert message.isprintable()
    assert len(message) < 400
