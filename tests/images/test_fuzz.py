"""300 damaged pictures, the same ones each time: each is read as a picture, or is one line that names it."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from tests.images.test_tar import opened
from vqlcmd.images.crops import Recipe, crop_views
from vqlcmd.images.formats import FORMATS
from vqlcmd.images.loader import load_all
from vqlcmd.images.rgb import read_picture
from vqlcmd.runtime.errors import DataError

SIZE, COUNT = 16, 300
MODES = {"PNG": ["RGB", "RGBA", "P", "I;16", "LA", "1"], "TIFF": ["RGB", "I;16", "F", "CMYK"], "PPM": ["L", "RGB", "1"]}


def whole(random: np.random.Generator) -> bytes:
    """A picture of noise in one of the formats, with metadata where the format has any."""
    file_format = random.choice([name for name in FORMATS if name != "AVIF" or features.check("avif")])
    mode = random.choice(MODES.get(file_format, ["RGB"]))
    height, width = random.integers(4, 40, 2)
    if mode == "I;16":
        image = Image.fromarray(random.integers(0, 65536, (height, width), dtype=np.uint16))
    elif mode == "F":
        image = Image.fromarray(random.random((height, width), dtype=np.float32))
    else:
        image = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[274] = int(random.integers(1, 9))
    options = {"exif": exif} if file_format in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF") else {}
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def damaged(contents: bytes, random: np.random.Generator) -> bytes:
    """Some bytes changed, cut off, taken out, doubled, or set to what sizes are made of; mostly near the beginning."""
    data = bytearray(contents)
    for _ in range(random.integers(1, 6)):
        place = int(min(random.integers(0, len(data)), random.integers(0, len(data))))
        length = int(random.integers(1, 9))
        kind = random.integers(0, 5)
        if kind == 0:
            data[place] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            data[place : place + length] = random.bytes(length)
        elif kind == 2:
            data[place : place + length] = bytes([random.choice([0, 1, 0x7F, 0x80, 0xFF])]) * length
        elif kind == 3:
            data[place : place + length] = data[place : place + length] * 2
        elif len(data) > 20:
            del data[place + 10 if random.random() < 0.3 else -length :]
    return bytes(data)


@pytest.mark.slow
def test_a_damaged_picture_is_read_or_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQLCMD_PICTURE_MB", "64")
    random = np.random.default_rng(11)
    (tmp_path / "set").mkdir()
    for number in range(COUNT):
        (tmp_path / "set" / f"{number:03}.png").write_bytes(damaged(whole(random), random))
    recipe = Recipe(SIZE, "bilinear")
    broken: dict[str, str] = {}
    read = load_all(opened(tmp_path / "set"), recipe, skip_broken=True, broken=broken)
    assert read.images.shape == (COUNT - len(broken), 3, SIZE, SIZE)
    assert COUNT // 10 < len(broken) < COUNT * 9 // 10, "some are read and some are not"
    for name, why in broken.items():
        assert name.isprintable()
        assert why.isprintable(), (name, why)
        assert 0 < len(why) < 350, (name, why)
        assert str(tmp_path) not in why
    position = 0
    for number in range(COUNT):
        path = tmp_path / "set" / f"{number:03}.png"
        if path.name in broken:
            with pytest.raises(DataError, match=rf"{path.name} cannot be read as a picture: "):
                crop_views(read_picture(path, "white"), recipe, 0)
        else:
            alone = crop_views(read_picture(path, "white"), recipe, 0)[0]
            assert torch.equal(read.images[position], torch.from_numpy(alone)), "alone and among others"
            position += 1
