"""LSUN's format: what an LMDB gives, and what is said where it cannot be read."""

import builtins
import os
import shutil
from pathlib import Path

import lmdb
import pytest

from tests.kinds import PICTURES, database
from tests.pictures import RECIPE
from vqlcmd.images import manifest, sources
from vqlcmd.images.loader import load_all, open_images
from vqlcmd.images.sources.lmdb import Lmdb
from vqlcmd.runtime.errors import DataError

WEBP = PICTURES["ant/2.webp"]


def test_the_images_come_in_the_order_of_the_keys_and_have_no_classes(tmp_path: Path) -> None:
    keys = [f"{number:040x}" for number in (7, 3, 0xFF, 5)]
    path = database(tmp_path, dict.fromkeys(keys, WEBP))
    source = open_images(manifest.scan("church", path), tmp_path)
    assert [source.name(i) for i in range(4)] == [f"data.mdb/{key}" for key in sorted(keys)]
    assert source.classes == ()
    assert load_all(source, RECIPE).images.unique(dim=0).shape[0] == 1


def test_nothing_is_written_beside_a_database_that_is_read(tmp_path: Path) -> None:
    path = database(tmp_path, PICTURES)
    (path / "lock.mdb").unlink()
    load_all(Lmdb(path), RECIPE)
    assert [item.name for item in path.iterdir()] == ["data.mdb"]


def test_two_sources_may_lie_in_one_database(tmp_path: Path) -> None:
    """LMDB refuses to open a file twice in one process."""
    one = Lmdb(database(tmp_path, PICTURES))
    first = one.open(0).size
    two = Lmdb(tmp_path / "set_lmdb")
    assert (one.open(0).size, two.open(0).size) == (first, first)


def test_a_child_reads_what_its_parent_has_open_through_an_environment_of_its_own(tmp_path: Path) -> None:
    """LMDB allows no use of one in the child of the process that opened it."""
    source = Lmdb(database(tmp_path, PICTURES))
    size = source.open(3).size
    child = os.fork()
    if not child:
        inherited = len(sources.lmdb._kept)
        os._exit(0 if not inherited and source.open(3).size == size else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert source.open(3).size == size


def test_a_database_in_the_place_of_another_is_not_mistaken_for_it(tmp_path: Path) -> None:
    path = database(tmp_path / "one", {"1": WEBP})
    source = Lmdb(path)
    before = source.open(0).size
    other = database(tmp_path / "two", {"1": PICTURES["cat/3.png"]})
    shutil.rmtree(path)
    other.rename(path)
    assert source.open(0).size != before


def test_a_database_that_is_cut_short_is_one_line_and_not_a_crash(tmp_path: Path) -> None:
    """Reading past the end of a mapped file ends the process with a bus error."""
    path = database(tmp_path, {str(i): WEBP * 20 for i in range(50)})
    whole = (path / "data.mdb").read_bytes()
    for part in (0.99, 0.5, 0.1):
        (path / "data.mdb").write_bytes(whole[: int(len(whole) * part)])
        with pytest.raises(DataError, match=r"set_lmdb: cut short: data\.mdb has \d+ of \d+ bytes") as error:
            manifest.scan("church", path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("contents", [b"", b"no database" * 1000])
def test_a_file_that_is_no_database_is_one_line(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(contents)
    with pytest.raises(DataError, match="not an LMDB that can be read") as error:
        manifest.scan("church", tmp_path)
    assert "\n" not in str(error.value)


def test_an_empty_database_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images in this LMDB"):
        manifest.scan("church", database(tmp_path, {}))


def test_a_value_of_another_size_is_noticed_once_it_takes_other_pages(tmp_path: Path) -> None:
    made = manifest.scan("church", database(tmp_path / "a", {"1": bytes(5000), "2": bytes(9000)}))
    for number, (size, noticed) in enumerate([(9001, False), (20_000, True)]):
        path = database(tmp_path / str(number), {"1": bytes(5000), "2": bytes(size)})
        if noticed:
            with pytest.raises(DataError, match=r"data\.mdb \(.* bytes in the manifest"):
                open_images(made, path.parent)
        else:
            open_images(made, path.parent)


def test_an_image_that_is_gone_is_a_broken_one(tmp_path: Path) -> None:
    path = database(tmp_path, {"1": WEBP, "2": WEBP})
    source = Lmdb(path)
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"2")
    with pytest.raises(DataError, match=r"1 of 2 images cannot be read: data\.mdb/2 \(it is no longer in the LMDB\)"):
        load_all(source, RECIPE)


def test_without_the_package_the_command_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = database(tmp_path, PICTURES)
    original = builtins.__import__

    def without(name: str, *rest: object) -> object:
        if name == "lmdb":
            raise ImportError
        return original(name, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"pip install 'vqlcmd\[lsun\]'"):
        manifest.scan("church", path)
