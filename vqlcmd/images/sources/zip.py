"""Zip archives: a folder of images packed as it is, or as StyleGAN's tools write it, with labels in dataset.json."""

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from vqlcmd.images.sources.archives import Shard, class_name, is_image
from vqlcmd.runtime.errors import DataError

LOCAL_HEADER = struct.Struct("<4s22xHH")
LABELS = "dataset.json"
ENCRYPTED = 1


class Zip:
    """Images of a zip archive in the order of their names."""

    ending = ".zip"

    def index(self, path: Path, classes: bool) -> Shard:
        """As `archives.Format.index`. Labels are those of dataset.json; its `null` says that there are none."""
        try:
            with zipfile.ZipFile(path) as archive:
                members = sorted(
                    (member for member in archive.infolist() if is_image(member.filename)), key=lambda m: m.filename
                )
                described = LABELS in archive.NameToInfo and classes
                labels = _labels(archive.read(LABELS), path) if described else None
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise DataError(f"{path}: no whole zip archive ({error}); fetch it again") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: it says that the name {error.object!r} is UTF-8; pack it again") from None
        for member in members:
            if member.flag_bits & ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(
                    f"{path}: {member.filename} is encrypted, or packed by method {member.compress_type};"
                    " pack it by `zip -0`, or with deflate"
                )
        places = [(m.header_offset, m.compress_size, m.file_size, m.compress_type, m.CRC) for m in members]
        return Shard(
            [member.filename.encode() for member in members],
            [member.file_size for member in members],
            np.array(places, dtype=np.int64).reshape(-1, 5),
            [labels.get(member.filename) if labels else None for member in members],
            without_labels=described and not labels,
        )

    def read(self, file: io.BufferedReader, place: list[int]) -> bytes:
        """As `archives.Format.read`."""
        offset, packed, size, method, checksum = place
        file.seek(offset)
        mark, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
        if mark != b"PK\3\4":
            raise DataError("the archive has changed, or is damaged")
        file.seek(name + extra, io.SEEK_CUR)
        contents = file.read(packed)
        if method == zipfile.ZIP_DEFLATED:
            contents = zlib.decompressobj(-zlib.MAX_WBITS).decompress(contents, size + 1)
        if len(contents) != size or zlib.crc32(contents) != checksum:
            raise DataError("its checksum in the archive is another")
        return contents


def _labels(contents: bytes, path: Path) -> dict[str, str] | None:
    """{image: class} of `{"labels": [[image, class], ...]}`; None for `{"labels": null}`."""
    try:
        given: Any = json.loads(contents)["labels"]
        if given is None:
            return None
        labels = {name: class_name(label) for name, label in given}
        wrong = next((name for name, label in labels.items() if label is None), None)
    except (ValueError, KeyError, TypeError):
        labels, wrong = {}, "something else"
    if wrong is not None:
        raise DataError(
            f'{path}: {LABELS} should hold {{"labels": [[image, class], ...]}}, a class being a number or a name,'
            f" but not so {wrong}; mend it, or scan with --no-classes"
        )
    return {name: label for name, label in labels.items() if label is not None}
