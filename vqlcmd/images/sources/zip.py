"""Zip archives: a folder of images packed as is, or as StyleGAN's tools write it, with labels in dataset.json."""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vqlcmd.images.formats import LeftOut, is_picture
from vqlcmd.images.sources.archives import Shard, below, class_name, is_hidden, slashed
from vqlcmd.images.sources.listing import first_folder, raise_if_beyond
from vqlcmd.runtime import paths
from vqlcmd.runtime.artefacts.json_file import parse_json
from vqlcmd.runtime.errors import DataError, shown

LOCAL_HEADER = struct.Struct("<4s22xHH")
LABELS = "dataset.json"
LARGEST_LABELS = 2**28
ENCRYPTED = 1


class Zip:
    """The images of a zip archive, sorted by name."""

    ending = ".zip"

    def index(self, path: Path, classes: bool) -> Shard:
        """See `archives.Format.index`. Labels are those in dataset.json; `null` there means that there are none."""
        left_out = LeftOut()
        try:
            with zipfile.ZipFile(path) as archive:
                members = sorted(_images(archive, left_out), key=lambda member: member.filename)
                for member in members:
                    _raise_if_odd(member, path)
                described, labels = _given(archive, members, path) if classes else (False, None)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: it says that the name {shown(error.object)} is UTF-8; pack it again") from None
        except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError) as error:
            raise DataError(f"{path}: no whole zip archive ({shown(error)}); fetch it again") from None
        places = [(m.header_offset, m.compress_size, m.file_size, m.compress_type, m.CRC) for m in members]
        return Shard(
            [member.filename.encode() for member in members],
            [member.file_size for member in members],
            np.array(places, dtype=np.int64).reshape(-1, 5),
            [labels.get(member.filename) if labels else None for member in members],
            left_out.counts,
            without_labels=described and not labels,
        )

    def read(self, file: io.BufferedReader, place: list[int]) -> bytes:
        """See `archives.Format.read`."""
        offset, packed, size, method, checksum = place
        raise_if_beyond(size, paths.picture_memory())
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


def _images(archive: zipfile.ZipFile, left_out: LeftOut) -> Iterator[zipfile.ZipInfo]:
    """Yields the members that are images, with forward slashes in their names."""
    for member in archive.infolist():
        member.filename = slashed(member.filename)
        if is_hidden(member.filename):
            continue
        if is_picture(member.filename):
            yield member
        else:
            left_out.note(member.filename)


def _raise_if_odd(member: zipfile.ZipInfo, path: Path) -> None:
    if member.flag_bits & ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{path}: {shown(member.filename)} is encrypted, or packed by method {member.compress_type};"
            " pack it by `zip -0`, or with deflate"
        )
    if max(member.header_offset, member.compress_size, member.file_size) >= 2**63:
        raise zipfile.BadZipFile(f"a size of {shown(member.filename)} is beyond 63 bits")


def _given(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], path: Path) -> tuple[bool, dict[str, str] | None]:
    """Whether a dataset.json is at the top or in the one folder that holds everything, and the labels in it."""
    tops = {first_folder(member.filename) for member in members}
    top = tops.pop() if len(tops) == 1 else ""
    described = next((info for info in archive.infolist() if below(info.filename, top) == LABELS), None)
    if described is None:
        return False, None
    if described.file_size > LARGEST_LABELS:
        raise DataError(f"{path}: {LABELS} has {described.file_size} bytes, too many; scan with --no-classes")
    labels = _labels(archive.read(described), path)
    if not labels:
        return True, None
    # Names in it are relative to its own folder, or to the top.
    found = {
        member.filename: labels.get(below(member.filename, top), labels.get(member.filename)) for member in members
    }
    if members and not any(found.values()):
        raise DataError(
            f"{path}: {LABELS} names {len(labels)} images, such as {shown(next(iter(labels)))}, but none of those"
            f" in the archive, such as {shown(members[0].filename)}; fix the names, or scan with --no-classes"
        )
    return True, {name: label for name, label in found.items() if label is not None}


def _labels(contents: bytes, path: Path) -> dict[str, str] | None:
    """{image: class} of `{"labels": [[image, class], ...]}`; None for `{"labels": null}`."""
    described: Any = parse_json(contents, f"{path}: {LABELS}", "fix it there, or scan with --no-classes", nan=True)
    try:
        given = described["labels"]
        if given is None:
            return None
        labels = {slashed(name): class_name(label) for name, label in given}
        wrong = next((name for name, label in labels.items() if label is None), None)
        twice = len(labels) < len(given)
    except (ValueError, KeyError, TypeError, AttributeError):
        labels, wrong, twice = {}, "something else", False
    if wrong is not None:
        raise DataError(
            f'{path}: {LABELS} should hold {{"labels": [[image, class], ...]}}, a class being a number or a name,'
            f" but not so {shown(wrong)}; fix it there, or scan with --no-classes"
        )
    if twice:
        raise DataError(f"{path}: {LABELS} names an image twice; fix it there, or scan with --no-classes")
    return {name: label for name, label in labels.items() if label is not None}
