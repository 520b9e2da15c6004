"""torchvision's data sets, in the raw formats that it downloads: tiny ones, of which nothing is fetched."""

import hashlib
import pickle
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pictures import RECIPE
from vqlcmd.images.loader import load_all, open_images
from vqlcmd.images.manifest import read, scan, write
from vqlcmd.images.sources import torchvision_sets
from vqlcmd.images.sources.torchvision_sets import SETS, fetch
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.torchvision_guard import guard_torchvision

COUNT = 6
RANDOM = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("there is no network in a test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def datasets() -> Any:
    guard_torchvision()
    from torchvision import datasets

    return datasets


def put(path: Path, contents: bytes) -> str:
    """The file's MD5, by which torchvision knows its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents)
    return hashlib.md5(contents).hexdigest()


def mnist(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> np.ndarray:
    pixels = RANDOM.integers(0, 256, (COUNT, 28, 28), dtype=np.uint8)
    for split in ("train", "t10k"):
        folder = root / name / "raw"
        sizes = b"".join(size.to_bytes(4, "big") for size in pixels.shape)
        put(folder / f"{split}-images-idx3-ubyte", b"\0\0\x08\x03" + sizes + pixels.tobytes())
        labels = COUNT.to_bytes(4, "big") + bytes([3, 0, 9, 1, 2, 3])
        put(folder / f"{split}-labels-idx1-ubyte", b"\0\0\x08\x01" + labels)
    return np.stack([pixels] * 3, axis=1)


def cifar(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> np.ndarray:
    kind = getattr(datasets(), name)
    hundred = name == "CIFAR100"
    pixels = RANDOM.integers(0, 256, (COUNT, 3, 32, 32), dtype=np.uint8)
    entry = {"data": pixels.reshape(COUNT, -1), "fine_labels" if hundred else "labels": [3, 0, 9, 1, 2, 3]}
    digests = {}
    for file, contents in (("train", pickle.dumps(entry)), ("test", pickle.dumps(entry))):
        digests[file] = [file, put(root / kind.base_folder / file, contents)]
    names = [f"c{number:02}" for number in range(100)] if hundred else [*"abcdefghij"]
    meta = put(root / kind.base_folder / "meta", pickle.dumps({kind.meta["key"]: names}))
    monkeypatch.setattr(kind, "train_list", [digests["train"]])
    monkeypatch.setattr(kind, "test_list", [digests["test"]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "filename": "meta", "md5": meta})
    return pixels


def svhn(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> np.ndarray:
    from scipy.io import savemat

    pixels = RANDOM.integers(0, 256, (32, 32, 3, COUNT), dtype=np.uint8)
    root.mkdir(parents=True)
    savemat(root / "train_32x32.mat", {"X": pixels, "y": np.array([[3], [10], [9], [1], [2], [3]], np.uint8)})
    digest = hashlib.md5((root / "train_32x32.mat").read_bytes()).hexdigest()
    monkeypatch.setattr(datasets().SVHN, "split_list", {"train": ["", "train_32x32.mat", digest]})
    return pixels.transpose(3, 2, 0, 1)


def stl10(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> np.ndarray:
    kind = datasets().STL10
    pixels = RANDOM.integers(0, 256, (COUNT, 3, 96, 96), dtype=np.uint8)
    place = root / kind.base_folder
    # Columns first, and classes from 1.
    images = ["images", put(place / "images", np.ascontiguousarray(pixels.transpose(0, 1, 3, 2)).tobytes())]
    labels = ["labels", put(place / "labels", bytes([4, 1, 10, 2, 3, 4]))]
    put(place / kind.class_names_file, "\n".join("abcdefghij").encode())
    monkeypatch.setattr(kind, "train_list", [images, labels, images])
    monkeypatch.setattr(kind, "test_list", [images, labels])
    return pixels


def pictures(folder: Path, names: list[str]) -> np.ndarray:
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(RANDOM.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / name)
    return np.stack([np.asarray(Image.open(folder / name)) for name in names]).transpose(0, 3, 1, 2)


def celeba(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> np.ndarray:
    kind = datasets().CelebA
    names = [f"{number:06}.jpg" for number in range(1, COUNT + 1)]
    place = root / kind.base_folder
    found = pictures(place / "img_align_celeba", names)
    for _, _, file in kind.file_list[1:]:
        lines = [f"{each} {0 if 'partition' in file else 1}" for each in names]
        # Some begin with the count and the names of their columns.
        head = [] if "partition" in file or "identity" in file else [str(COUNT), "column"]
        put(place / file, "\n".join(head + lines).encode())
    digests = [(key, "", file) for key, _, file in kind.file_list[:1]]
    digests += [
        (key, hashlib.md5((place / file).read_bytes()).hexdigest(), file) for key, _, file in kind.file_list[1:]
    ]
    monkeypatch.setattr(kind, "file_list", digests)
    return found


def flowers(root: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> np.ndarray:
    from scipy.io import savemat

    kind = datasets().Flowers102
    place = root / "flowers-102"
    found = pictures(place / "jpg", [f"image_{number:05d}.jpg" for number in range(1, COUNT + 1)])
    savemat(place / "imagelabels.mat", {"labels": np.array([4, 1, 10, 2, 3, 4])})
    everything = np.arange(1, COUNT + 1)
    savemat(place / "setid.mat", {"trnid": everything, "valid": everything, "tstid": everything})
    digests = {
        key: (file, hashlib.md5((place / file).read_bytes()).hexdigest() if key != "image" else "")
        for key, (file, _) in kind._file_dict.items()
    }
    monkeypatch.setattr(kind, "_file_dict", digests)
    return found


MAKERS = {
    **dict.fromkeys(("MNIST", "FashionMNIST", "KMNIST"), mnist),
    **dict.fromkeys(("CIFAR10", "CIFAR100"), cifar),
    "SVHN": svhn,
    "STL10": stl10,
    "CelebA": celeba,
    "Flowers102": flowers,
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_torchvisions_is_scanned_and_read_from_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pixels = MAKERS[name](tmp_path / "torchvision", monkeypatch, name)
    path = fetch(f"torchvision:{name}", tmp_path)
    made = scan("set", path)
    assert (made.kind, made.folder, made.image_count) == ("torchvision", f"torchvision:{name}", COUNT)
    write(made, tmp_path / "set.json")
    source = open_images(read(tmp_path / "set.json"), tmp_path)
    with source.open(2) as image:
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")).transpose(2, 0, 1), pixels[2])
    expected = [0] * COUNT if name == "CelebA" else [3, 0, 9, 1, 2, 3]
    assert source.labels.tolist() == expected
    assert (len(source.classes) > 9) == (name != "CelebA"), "torchvision's numbers are the numbers of the classes"
    whole = load_all(source, RECIPE)
    assert whole.index.tolist() == list(range(COUNT))
    again = load_all(pickle.loads(pickle.dumps(source)), RECIPE)
    assert torch.equal(again.images, whole.images)
    assert load_all(open_images(scan("set", path, classes=False), tmp_path), RECIPE).labels.tolist() == [0] * COUNT


def test_other_pixels_are_noticed_and_a_split_is_a_data_set_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist(tmp_path / "torchvision", monkeypatch, "MNIST")
    test = scan("set", fetch("torchvision:MNIST:test", tmp_path))
    assert test.entries[0].path == "test"
    made = scan("set", fetch("torchvision:MNIST", tmp_path))
    mnist(tmp_path / "torchvision", monkeypatch, "MNIST")
    with pytest.raises(DataError, match=r"train \(other names, sizes or pixels\)"):
        open_images(made, tmp_path)


def test_images_of_which_some_have_no_class_have_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stl10(tmp_path / "torchvision", monkeypatch, "STL10")
    made = scan("set", fetch("torchvision:STL10:train+unlabeled", tmp_path))
    assert (made.image_count, made.classes) == (2 * COUNT, ())


def test_names_that_are_in_another_order_than_their_numbers_are_numbered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist(tmp_path / "torchvision", monkeypatch, "FashionMNIST")
    classes = scan("set", fetch("torchvision:FashionMNIST", tmp_path)).classes
    assert classes[:3] == ("0 T-shirt-top", "1 Trouser", "2 Pullover")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("torchvision:Cifar10", "torchvision:Cifar10 is none of MNIST"),
        ("torchvision:MNIST:valid", "torchvision:MNIST has no split valid: choose one of train, test"),
        ("torchvision:", "torchvision: is none of MNIST"),
    ],
)
def test_a_name_that_torchvision_does_not_have_is_told_with_those_it_has(
    tmp_path: Path, source: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        fetch(source, tmp_path)


def test_without_a_place_for_the_files_nothing_is_downloaded() -> None:
    with pytest.raises(ConfigError, match="set VQLCMD_IMAGES to a folder for data sets"):
        fetch("torchvision:MNIST", None)


@pytest.mark.parametrize("name", ["CIFAR10", "Flowers102"])
def test_a_download_that_fails_is_one_line_and_so_are_missing_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"torchvision finds no whole {name} there .*; try again") as error:
        fetch(f"torchvision:{name}", tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=rf"`vqlcmd scan NAME torchvision:{name}` fetches it"):
        scan("set", tmp_path / f"torchvision:{name}")


def test_a_changed_file_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path / "torchvision", monkeypatch, "CIFAR10")
    base = tmp_path / "torchvision" / datasets().CIFAR10.base_folder
    (base / "train").write_bytes(b"cbuiltins\nprint\n(S'run'\ntR.")
    monkeypatch.setattr(pickle, "load", pytest.fail)
    with pytest.raises(DataError, match="torchvision finds no whole CIFAR10"):
        scan("set", tmp_path / "torchvision:CIFAR10")


def test_a_root_without_torchvisions_folder_is_told_with_the_variable_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist(tmp_path / "torchvision", monkeypatch, "MNIST")
    made = scan("set", fetch("torchvision:MNIST", tmp_path))
    with pytest.raises(DataError, match="set VQLCMD_IMAGES to the folder that holds 'torchvision'"):
        open_images(made, tmp_path / "elsewhere")
    assert torchvision_sets.matches("/data/torchvision:MNIST")
