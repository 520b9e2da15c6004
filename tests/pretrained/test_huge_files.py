"""Files that say that they are huge, or are nested beyond measure: one line within seconds, and nothing is built."""

import dataclasses
import io
import json
import pickle
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.checkpoints import tamings
from tests.tokenizers import SMALL, seeded
from vqlcmd.pretrained import convert, inference
from vqlcmd.pretrained.pickles import PICKLE_BYTES
from vqlcmd.runtime.errors import DataError, UserError
from vqlcmd.runtime.safetensors_file import HEADER_BYTES, load_weights
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokenizer.vqgan import Architecture

SECONDS = 8
"""Of the processor: what is refused here took a minute, or the process."""


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


def refused(path: Path, *pieces: str) -> None:
    with pytest.raises(UserError) as caught:
        convert.read(path)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 1000
    for piece in (path.name, *pieces):
        assert piece in line, line


# Nested keys.


def tuples(depth: int) -> bytes:
    return b"(" + b")" + b"\x85" * depth  # MARK, an empty tuple, TUPLE1 again and again


def program(*pieces: bytes) -> bytes:
    return b"\x80\x02" + b"".join(pieces) + b"."


DEEP = 200_000
BEYOND = f"more than {PICKLE_BYTES} bytes"
KEYS = {
    "a key of a dictionary": program(b"}", tuples(DEEP)[1:], b"K\x01s"),
    "keys of a dictionary": program(b"}", b"(", tuples(DEEP)[1:], b"K\x01u"),
    "a dictionary made at once": program(b"(", tuples(DEEP)[1:], b"K\x01d"),
    "a set": b"\x80\x04\x8f(" + tuples(DEEP)[1:] + b"\x90.",
    "a frozen set": b"\x80\x04(" + tuples(DEEP)[1:] + b"\x91.",
    "an ordered dictionary": program(b"ccollections\nOrderedDict\n(", b"](", b"(", tuples(DEEP)[1:], b"K\x01te", b"tR"),
    "a key that holds itself twice, many times": program(b"})", b"q\x00h\x00\x86" * 200, b"K\x01s"),
    "numbers with one remainder": program(
        b"}", b"\x8a\x10" + (2**100 * (2**61 - 1) % 2**126).to_bytes(16, "little"), b"K\x01s"
    ),
}


@pytest.mark.parametrize("what", KEYS)
@pytest.mark.parametrize("layout", ["zip", "plain", "legacy"])
def test_keys_nested_beyond_all_measure_are_one_line(tmp_path: Path, what: str, layout: str) -> None:
    """Hashing them ended the process."""
    path = tmp_path / "last.ckpt"
    if layout == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", KEYS[what])
    else:
        head = (
            b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
            if layout == "legacy"
            else b""
        )
        path.write_bytes(head + KEYS[what])
    refused(path, "damaged" if layout != "plain" else "")


@pytest.mark.parametrize(
    ("what", "pickled"),
    [
        (BEYOND, program(b"N0" * (PICKLE_BYTES // 2))),
        (BEYOND, b"\x80\x05\x96" + struct.pack("<Q", 2**40) + bytes(100)),
        (BEYOND, b"\x80\x04\x8d" + struct.pack("<Q", 2**60) + b"a" * (PICKLE_BYTES + 1)),
        ("damaged", b"\x80\x02N" + b"r\xff\xff\xff\xff" + b"0" * 10 + b"."),
        ("damaged", program(b"I" + b"9" * 5000 + b"\n")),
        ("damaged", b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"N."),
    ],
)
def test_a_pickle_that_says_it_is_huge_is_one_line(tmp_path: Path, what: str, pickled: bytes) -> None:
    path = tmp_path / "last.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    refused(path, what if len(pickled) > 2**20 else "")


def test_a_tensor_of_many_dimensions_is_one_line(tmp_path: Path) -> None:
    path = tamings(tmp_path, {"quantize.embedding.weight": torch.zeros((1,) * 50), "encoder.a": torch.zeros(1)})
    refused(path, "a tensor of 50 dimensions")


def test_many_tensors_made_of_the_same_numbers_are_one_line(tmp_path: Path) -> None:
    storage = torch.zeros(2**16)
    held = dict(seeded(SMALL).state_dict())
    wide = {f"encoder.down.0.block.{n}.x": storage for n in range(300)}
    path = tamings(tmp_path, held | wide)
    refused(path)


def test_a_table_of_contents_without_end_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    whole = bytearray(path.read_bytes())
    found = whole.rindex(b"PK\5\6")
    whole[found + 12 : found + 16] = struct.pack("<I", 2**31)
    path.write_bytes(whole)
    refused(path, "a table of contents of 2147483648 bytes")


# Safetensors.


def header(path: Path, content: bytes, body: bytes = b"") -> Path:
    path.write_bytes(len(content).to_bytes(8, "little") + content + body)
    return path


def entries(count: int) -> bytes:
    one = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return json.dumps({f"encoder.down.{n}.block.0.conv1.weight": one for n in range(count)}).encode()


@pytest.mark.parametrize(
    ("content", "piece"),
    [
        (b'{"a":' + b" " * HEADER_BYTES + b"1}", "declares a header of"),
        (entries(30_000), "tensors, above 20000"),
        (json.dumps({"a": {"dtype": "F32", "shape": [1] * 50_000, "data_offsets": [0, 4]}}).encode(), "dimensions"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "damaged"),
        (b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', "damaged"),
        (b'{"__metadata__":{"about":7}}', ""),
        (b'{"__metadata__":[]}', "damaged"),
        (b'{"a":7}', "damaged"),
        (b"{}", ""),
        (b"{", "damaged"),
    ],
    ids=range(10),
)
def test_a_header_beyond_all_measure_is_one_line(tmp_path: Path, content: bytes, piece: str) -> None:
    refused(header(tmp_path / "a.safetensors", content, bytes(4 if piece != "tensors, above 20000" else 0)), piece)


@pytest.mark.parametrize("about", ["9" * 5000, "[" * 100_000, '{"kind": "VQGAN"', "[1]", '{"kind": "VQGAN"}'])
def test_what_a_file_says_of_itself_is_read_with_care(tmp_path: Path, about: str) -> None:
    """json.loads raises more than its own error."""
    path = tmp_path / "vqgan.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"about": about})
    refused(path)
    with pytest.raises(DataError):
        vqgan.load(path)
    with pytest.raises(DataError):
        load_weights(path, "model")


HUGE: list[tuple[str, Any]] = [
    ("num_res_blocks", 10**4),
    ("num_res_blocks", 10**9),
    ("num_res_blocks", 64),
    ("ch_mult", [1] * 10**6),
    ("ch_mult", [1] * 14),
    ("ch_mult", [10**400]),
    ("ch_mult", [[1]]),
    ("ch_mult", 3),
    ("ch", 10**9),
    ("ch", 2**14),
    ("resolution", 10**4000),
    ("z_channels", 10**9),
    ("embed_dim", 10**9),
    ("in_channels", 10**9),
    ("attn_resolutions", [8] * 10**6),
    ("attn_resolutions", {"a": 1}),
    ("n_embed", -1),
    ("n_embed", 10**30),
    ("variant", {"mid_blocks": 10**9}),
    ("variant", {"mid_blocks": 60}),
    ("variant", {"extra_blocks": 10**9}),
    ("variant", {"latent_kernel": 10**9 + 1}),
    ("variant", {"groups": 10**9}),
    ("variant", {"biases": "x"}),
    ("variant", {"shortcut": "x"}),
    ("variant", {"merged": 10**9}),
    ("variant", {"merged": 7}),
    ("variant", 7),
    ("more", 7),
]


@pytest.mark.parametrize(("name", "value"), HUGE, ids=range(len(HUGE)))
def test_an_architecture_that_is_not_the_tensors_is_refused_before_it_is_built(
    tmp_path: Path, name: str, value: Any
) -> None:
    """Ten thousand blocks were built, and compared with the file's forty tensors afterwards."""
    path = tmp_path / "vqgan.safetensors"
    vqgan.save(seeded(SMALL), path, {})
    with safetensors.safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    about["architecture"][name] = value
    safetensors.torch.save_file(seeded(SMALL).state_dict(), path, {"about": json.dumps(about)})
    refused(path, "copy it again")
    with pytest.raises(DataError, match="disagree"):
        vqgan.load(path)


def test_more_blocks_than_there_can_be_weights_for_are_counted_and_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the bounds of an architecture there is room for thousands of blocks, which take seconds to build."""
    large = dataclasses.replace(SMALL, num_res_blocks=64)
    held = dict(seeded(SMALL).state_dict())

    def built(architecture: Architecture) -> None:
        raise AssertionError(f"{architecture.resnet_blocks} blocks were built")

    monkeypatch.setattr(vqgan, "VQGAN", built)
    monkeypatch.setattr(inference, "VQGAN", built)
    for refuse in (lambda: vqgan.build(large, held), lambda: inference.expected(large, len(held))):
        with pytest.raises(DataError, match=rf"^{large.resnet_blocks} residual blocks take 6 tensors each, and there"):
            refuse()
    # As many as there may be: the count alone refuses nothing that could be whole.
    vqgan.raise_if_too_few(SMALL, 6 * SMALL.resnet_blocks)
    with pytest.raises(DataError):
        vqgan.raise_if_too_few(SMALL, 6 * SMALL.resnet_blocks - 1)


def test_weights_of_another_kind_of_number_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vqgan.safetensors"
    vqgan.save(seeded(SMALL), path, {})
    with safetensors.safe_open(path, framework="pt") as file:
        about = file.metadata()
    held = seeded(SMALL).state_dict()
    held["encoder.conv_in.bias"] = held["encoder.conv_in.bias"].long()
    safetensors.torch.save_file(held, path, about)
    refused(path, "is torch.int64, not float32")


def names_of(levels: int, blocks: int) -> Callable[[], dict[str, torch.Tensor]]:
    def make() -> dict[str, torch.Tensor]:
        held = dict(seeded(SMALL).state_dict())
        one = held["encoder.down.0.block.0.conv1.weight"]
        held |= {f"encoder.down.{n}.block.0.conv1.weight": one.clone() for n in range(levels)}
        return held | {f"encoder.down.0.block.{n}.norm1.weight": torch.zeros(32) for n in range(blocks)}

    return make


@pytest.mark.parametrize(("levels", "blocks"), [(13, 64), (3000, 1), (1, 5000), (2000, 2000)])
def test_names_of_blocks_that_are_not_there_build_nothing(tmp_path: Path, levels: int, blocks: int) -> None:
    buffer = io.BytesIO()
    torch.save(names_of(levels, blocks)(), buffer)
    path = tmp_path / "last.ckpt"
    path.write_bytes(buffer.getvalue())
    refused(path)
