"""Shards whose digests are right and whose contents are wrong: refused in one line, or read as they were written."""

import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.factory import codebook, integers
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.tokens import shards, streaming
from vqlcmd.tokens.header import MOST_CODES
from vqlcmd.tokens.shards import Split

HEADER = {"tokens": 4, "codes": 100, "classes": ["cat", "dog"]}
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = Split(integers(100, 6, 4), integers(2, 6), torch.arange(6))
    shards.write_shards(tmp_path / "tokens", {"train": made}, HEADER, 4, codebook(100))
    return tmp_path / "tokens"


def rewrite(folder: Path, **members: bytes | None) -> None:
    """The first shard with other members, and a header that vouches for it; None leaves one out."""
    path = folder / "train-000000.tar"
    with tarfile.open(path) as tar:
        held = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    held |= {f"000000.{name}.npy": contents for name, contents in members.items()}  # type: ignore[misc]
    with tarfile.open(path, "w") as tar:
        for name, contents in held.items():
            if contents is not None:
                member = tarfile.TarInfo(name)
                member.size = len(contents)
                tar.addfile(member, io.BytesIO(contents))
    vouch(folder, path)


def vouch(folder: Path, path: Path) -> None:
    header = json.loads((folder / "header.json").read_text(encoding="utf-8"))
    header["splits"]["train"]["shards"][0]["sha256"] = sha256(path)
    (folder / "header.json").write_text(json.dumps(header), encoding="utf-8")


def npy(array: np.ndarray, **how: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        shards.read_split(folder, "train")
    assert str(caught.value).count("\n") == 0
    assert len(str(caught.value)) < 400
    return str(caught.value)


GOOD = np.arange(16, dtype=np.uint16).reshape(4, 4)
WRONG = {
    "cut": {"tokens": npy(GOOD)[:-3]},
    "longer": {"tokens": npy(GOOD) + b"x"},
    "header cut": {"tokens": npy(GOOD)[:20]},
    "no npy": {"tokens": b"x" * 160},
    "empty": {"tokens": b""},
    "rows": {"tokens": npy(GOOD[:3])},
    "columns": {"tokens": npy(GOOD[:, :3].copy())},
    "dtype": {"tokens": npy(GOOD.astype(np.int32))},
    "big endian": {"tokens": npy(GOOD.astype(">u2"))},
    "fortran": {"tokens": npy(np.asfortranarray(GOOD))},
    "pickled": {"tokens": npy(np.array([{"a": 1}] * 4, dtype=object), allow_pickle=True)},
    "structured": {"cls": npy(np.zeros(4, dtype=[("a", "<i8")]))},
    "code K": {"tokens": npy(np.full_like(GOOD, 100))},
    "label past the classes": {"cls": npy(np.array([0, 1, 2, 0]))},
    "label below 0": {"cls": npy(np.array([0, 1, -1, 0]))},
    "labels short": {"cls": npy(np.array([0, 1, 1]))},
    "index below 0": {"index": npy(np.array([0, 1, -2, 3]))},
    "missing": {"index": None},
    "one more": {"other": npy(GOOD)},
    "bomb": {"tokens": npy(GOOD) + bytes(10**6)},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_shard_with_the_right_digest_and_wrong_contents_is_refused_in_one_line(folder: Path, name: str) -> None:
    """Some raised ValueError; tokens at K and labels past the classes were accepted."""
    rewrite(folder, **WRONG[name])
    assert str(folder / "train-000000.tar") in refused(folder)


def test_a_rewritten_shard_that_is_right_is_read(folder: Path) -> None:
    rewrite(folder, tokens=npy(GOOD))
    assert shards.read_split(folder, "train").tokens[:4].tolist() == GOOD.tolist()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_member_that_is_no_plain_file_is_refused(folder: Path, kind: bytes) -> None:
    path = folder / "train-000000.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("000000.tokens.npy")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    vouch(folder, path)
    refused(folder)


def test_a_compressed_tar_is_not_unpacked(folder: Path) -> None:
    path = folder / "train-000000.tar"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("000000.tokens.npy")
        member.size = 10**6
        tar.addfile(member, io.BytesIO(bytes(10**6)))
    vouch(folder, path)
    refused(folder)


def first(header: dict[str, Any]) -> dict[str, Any]:
    return header["splits"]["train"]["shards"][0]


HEADERS: dict[str, Change] = {
    "path": lambda h: first(h).update(file="../../../etc/passwd"),
    "absolute": lambda h: first(h).update(file="/etc/passwd"),
    "another of the folder": lambda h: first(h).update(file="train-000001.tar"),
    "number as a name": lambda h: first(h).update(file=3),
    "classes": lambda h: h.update(classes="cats"),
    "class of no text": lambda h: h.update(classes=[1, 2]),
    "count": lambda h: first(h).update(images=10**40),
    "count below": lambda h: first(h).update(images=-1),
    "count as text": lambda h: first(h).update(images="4"),
    "sum": lambda h: h["splits"]["train"].update(images=7),
    "codes": lambda h: h.update(codes=2**16 + 1),
    "tokens": lambda h: h.update(tokens=0),
    "many tokens": lambda h: h.update(tokens=10**9),
    "no splits": lambda h: h.pop("splits"),
    "splits": lambda h: h.update(splits=[]),
    "split's name": lambda h: h["splits"].update({"../x": h["splits"]["train"]}),
    "digest": lambda h: first(h).update(sha256="0" * 63),
    "file": lambda h: h["files"].update({"../codebook.npy": "0" * 64}),
    "format": lambda h: h.update(format=True),
    "old format": lambda h: h.update(format=1),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_believed_after_a_check_of_every_name_and_number(folder: Path, name: str) -> None:
    """`"file": "../../../etc/passwd"` was opened."""
    path = folder / "header.json"
    header = json.loads(path.read_text(encoding="utf-8"))
    HEADERS[name](header)
    path.write_text(json.dumps(header), encoding="utf-8")
    assert str(path) in refused(folder)
    with pytest.raises(DataError):
        streaming.open_split(folder, "train", torch.device("cpu"), 10**9)


def test_another_codebook_is_refused_and_a_damaged_one(folder: Path) -> None:
    assert torch.equal(shards.read_codebook(folder), codebook(100))
    np.save(folder / "codebook.npy", codebook(100, 5).numpy())
    with pytest.raises(DataError, match="differs from the digest"):
        shards.read_codebook(folder)
    for contents in (npy(codebook(99).numpy()), b"x", npy(codebook(100).double().numpy())):
        (folder / "codebook.npy").write_bytes(contents)
        header = json.loads((folder / "header.json").read_text(encoding="utf-8"))
        header["files"]["codebook.npy"] = sha256(folder / "codebook.npy")
        (folder / "header.json").write_text(json.dumps(header), encoding="utf-8")
        with pytest.raises(DataError, match=r"codebook\.npy is damaged"):
            shards.read_codebook(folder)


@pytest.mark.parametrize("token", [-1, MOST_CODES])
def test_a_token_that_does_not_fit_is_refused_in_writing_and_does_not_wrap(tmp_path: Path, token: int) -> None:
    made = Split(torch.tensor([[0, 1, 2, token]]), torch.zeros(1, dtype=torch.int64), torch.tensor([0]))
    with pytest.raises(DataError, match="do not fit into 16 bits"):
        shards.write_shards(tmp_path / "tokens", {"train": made}, HEADER, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_codebook_with_more_codes_than_tokens_have_values_is_refused(tmp_path: Path) -> None:
    made = Split(integers(9, 2, 4), torch.zeros(2, dtype=torch.int64), torch.arange(2))
    with pytest.raises(ConfigError, match="65537 codes, but tokens are 16 bits"):
        shards.write_shards(tmp_path / "tokens", {"train": made}, {**HEADER, "codes": MOST_CODES + 1}, 1)


@pytest.mark.slow
def test_a_thousand_damaged_folders_are_read_right_or_refused_in_one_line(folder: Path) -> None:
    """Fixed seed: bytes changed, cut or doubled in shards and headers; a shard's digest is made right again."""
    draw = random.Random(11)
    shard, header = folder / "train-000000.tar", folder / "header.json"
    before = {path: path.read_bytes() for path in (shard, header)}
    right = shards.read_split(folder, "train")
    outcomes = {"right": 0, "refused": 0}
    for round_ in range(1000):
        for path, contents in before.items():
            path.write_bytes(contents)
        path = shard if round_ % 2 else header
        path.write_bytes(damaged(before[path], draw))
        if path is shard:
            vouch(folder, shard)
        found = read_or_line(folder)
        if isinstance(found, str):
            assert "\n" not in found
            assert len(found) < 500
            outcomes["refused"] += 1
            continue
        # What is not covered by any rule is a number that may as well be right.
        assert found.tokens.shape == right.tokens.shape
        assert 0 <= int(found.tokens.min()) <= int(found.tokens.max()) < 100
        assert 0 <= int(found.labels.min()) <= int(found.labels.max()) < 2
        outcomes["right"] += 1
    assert min(outcomes.values()) > 20, outcomes


PICTURES = {"images": torch.zeros(3, 3, 8, 8, dtype=torch.uint8), "labels": torch.tensor([0, 1, 1])}


@pytest.mark.parametrize(
    "change",
    [
        {"images": None},
        {"labels": None},
        {"images": torch.zeros(3, 3, 8, 8)},
        {"images": torch.zeros(3, 8, 8, dtype=torch.uint8)},
        {"images": torch.zeros(3, 1, 8, 8, dtype=torch.uint8)},
        {"labels": torch.tensor([0, 1])},
        {"labels": torch.tensor([0, 1, 2])},
        {"labels": torch.tensor([0, -1, 1])},
    ],
    ids=lambda change: f"{next(iter(change))} {getattr(next(iter(change.values())), 'shape', None)}",
)
def test_pictures_with_the_right_digest_and_wrong_contents_are_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None]
) -> None:
    """They are looked at by one stage alone, where a missing name was a KeyError."""
    held = {name: tensor for name, tensor in (PICTURES | change).items() if tensor is not None}
    with shards.ShardWriter(tmp_path / "tokens", 4) as writer:
        writer.add("train", Split(integers(100, 6, 4), integers(2, 6), torch.arange(6)))
        writer.finish(HEADER, codebook(100), held)
    with pytest.raises(DataError, match=r"previews\.safetensors is damaged"):
        shards.read_previews(tmp_path / "tokens")


def read_or_line(folder: Path) -> Split | str:
    try:
        return shards.read_split(folder, "train")
    except DataError as error:
        return str(error)


def damaged(contents: bytes, draw: random.Random) -> bytes:
    changed = bytearray(contents)
    # Where there is something: the rest of a tar is zeros.
    places = [place for place, value in enumerate(contents) if value]
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        place = draw.choice(places) % len(changed)
        act = draw.randrange(5)
        if act == 0:
            changed[place] ^= 1 << draw.randrange(8)
        elif act == 1:
            changed[place] = draw.randrange(256)
        elif act == 2:
            del changed[place : place + draw.choice([1, 2, 512])]
        elif act == 3:
            changed[place:place] = changed[place : place + draw.choice([1, 2, 512])]
        else:
            del changed[max(place, 1) :]
    return bytes(changed)
