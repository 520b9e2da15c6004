"""A picture is opened by what is in it, in one of the formats that docs/data.md lists, and within a limit."""

import io
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from tests.images.test_tar import opened
from tests.kinds import MAKERS, PICTURES
from tests.pictures import RECIPE
from tests.pipeline_imports import ROOT
from vqlcmd.images.formats import ACCEPTED, EXTENSIONS, FORMATS
from vqlcmd.images.loader import load_all, open_images
from vqlcmd.images.manifest import scan, scanned
from vqlcmd.images.rgb import read_picture
from vqlcmd.runtime.errors import ConfigError, DataError


def encoded(file_format: str, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (9, 8)).save(file, file_format)
    return file.getvalue()


def png(
    width: int, height: int, depth: int = 8, colours: int = 0, rows: bytes = b"", key: bytes | None = None
) -> bytes:
    """A PNG by hand, since Pillow writes neither all depths nor sizes that are not there."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))]
    chunks += [(b"tRNS", key)] if key is not None else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("other", ["EPS", "PDF", "ICO", "TGA", "PCX", "SGI"])
def test_a_file_of_another_format_is_broken_whatever_its_ending(
    tmp_path: Path, kind: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An EPS named .png made Pillow call Ghostscript."""
    monkeypatch.setattr(subprocess, "check_call", pytest.fail)
    monkeypatch.setattr(subprocess, "Popen", pytest.fail)
    broken: dict[str, str] = {}
    source = opened(MAKERS[kind](tmp_path, {**PICTURES, "ant/0.png": encoded(other)}))
    assert load_all(source, RECIPE, skip_broken=True, broken=broken).index.tolist() == [*range(1, 12)]
    assert list(broken.values()) == ["not an image in an accepted format"]


def test_every_accepted_format_is_read_under_every_ending(tmp_path: Path) -> None:
    for file_format in FORMATS:
        if file_format != "AVIF" or features.check("avif"):
            (tmp_path / f"{file_format}.png").write_bytes(encoded(file_format))
            assert read_picture(tmp_path / f"{file_format}.png", "white").size == (9, 8), file_format


def test_greymaps_jfif_and_avif_are_found(tmp_path: Path) -> None:
    for name, contents in {
        "1.jfif": encoded("JPEG"),
        "2.pgm": encoded("PPM", "L"),
        "3.pbm": encoded("PPM", "1"),
        "4.PNM": encoded("PPM"),
        "5.avif": b"",
    }.items():
        (tmp_path / name).write_bytes(contents)
    assert scan("set", tmp_path).image_count == 5


def test_what_looks_like_a_picture_and_is_left_out_is_counted(tmp_path: Path) -> None:
    others = {"ant/9.heic": b"x", "ant/8.HEIC": b"x", "bee/7.psd": b"x", "bee/.6.psd": b"x", "cat/notes.txt": b"x"}
    for kind, make in MAKERS.items():
        _, source = scanned(
            "set", make(tmp_path / kind, {**PICTURES, **others} if kind in ("folder", "zip") else PICTURES)
        )
        assert source.left_out == ({".heic": 2, ".psd": 1} if kind in ("folder", "zip") else {})


def test_the_documents_list_the_accepted_endings() -> None:
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert " ".join(EXTENSIONS[:-1]) + " or " + EXTENSIONS[-1] in text
    assert ACCEPTED.split() == list(EXTENSIONS)


@pytest.mark.parametrize(("depth", "colours", "takes"), [(16, 0, 1152), (8, 2, 576), (8, 6, 1152), (1, 0, 576)])
def test_a_picture_beyond_the_limit_is_refused_before_it_is_decoded(
    tmp_path: Path, depth: int, colours: int, takes: int
) -> None:
    """280 KB of PNG cost two minutes and three gigabytes; Pillow's own limit lets them pass."""
    (tmp_path / "huge.png").write_bytes(png(12_000, 12_000, depth, colours))
    with pytest.raises(DataError) as error:
        read_picture(tmp_path / "huge.png", "white")
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'huge.png'} cannot be read as a picture: 12000 x 12000 pixels")
    assert f"take {takes} MB, above the limit of 512; set VQLCMD_PICTURE_MB to more" in message


def test_the_limit_is_a_setting_and_names_what_is_beyond_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for side in (499, 501):
        Image.new("RGB", (side, side)).save(tmp_path / f"{side}.png")
    monkeypatch.setenv("VQLCMD_PICTURE_MB", "1")
    broken: dict[str, str] = {}
    assert len(load_all(opened(tmp_path), RECIPE, skip_broken=True, broken=broken).index) == 1
    assert list(broken) == ["501.png"]
    assert "501 x 501 pixels take 1 MB" in broken["501.png"]
    monkeypatch.setenv("VQLCMD_PICTURE_MB", "1e3")
    with pytest.raises(ConfigError, match="VQLCMD_PICTURE_MB is '1e3', but must be a whole number from 1"):
        open_images(scan("set", tmp_path), tmp_path.parent)


def test_pillows_own_limit_is_left_as_it_was_and_does_not_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.new("RGB", (20, 20)).save(tmp_path / "1.png")
    assert read_picture(tmp_path / "1.png", "white").size == (20, 20)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_a_member_that_unpacks_to_more_than_the_limit_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    from tests.kinds import zipped

    monkeypatch.setenv("VQLCMD_PICTURE_MB", "1")
    path = zipped(tmp_path, {"1.png": bytes(2 * 10**6), "2.png": PICTURES["ant/0.png"]}, zipfile.ZIP_DEFLATED)
    broken: dict[str, str] = {}
    load_all(opened(path), RECIPE, skip_broken=True, broken=broken)
    assert broken == {"pictures.zip/1.png": "it has 2 MB; set VQLCMD_PICTURE_MB to more, or leave it out"}


@pytest.mark.parametrize("damage", [b"", b"no picture", encoded("PNG")[:44], encoded("EPS"), encoded("JPEG")[:-200]])
def test_a_file_that_cannot_be_read_is_one_line_that_names_it(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "1.png").write_bytes(damage)
    with pytest.raises(DataError, match=r"1\.png cannot be read as a picture: ") as error:
        read_picture(tmp_path / "1.png", "white")
    assert str(error.value).isprintable()


def grey(values: list[int]) -> bytes:
    return b"\0" + np.array(values, ">u2").tobytes()


def test_the_helper_writes_what_pillow_reads() -> None:
    image = Image.open(io.BytesIO(png(2, 2, 16, 0, grey([0, 1000]) * 2)))
    assert np.asarray(image).tolist() == [[0, 1000]] * 2
