"""Two hundred damaged and hostile checkpoints from a fixed seed: a tokenizer of the right form, or one line in time."""

import io
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.tokenizers import SMALL, seeded
from vqlcmd.pretrained import convert
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.tokenizer import vqgan

CASES = 200
SECONDS = 8
"""Of the processor, for each of them."""
HOSTILE: list[Any] = [0, -1, 2**31, 2**63, 10**30, 1e308, True, None, "x" * 10**5, "\x1b[2J\n", [], [[]] * 50, {"a": 1}]
PICKLED = [b"}", b"(", b"]", b")", b"\x85", b"0", b"2", b"K\x01", b"s", b"u", b"a", b"e", b"R", b"Q", b"b", b"d", b"t"]
PICKLED += [b"\x81", b"\x8f", b"\x90", b"\x91", b"\x93", b"N", b"\x8a\x09" + b"\xff" * 9, b"q\x00", b"h\x00", b"."]
PICKLED += [b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"ctorch\nFloatStorage\n"]
PICKLED += [
    b"cargparse\nNamespace\n",
    b"cos\nsystem\n",
    b"I" + b"9" * 4400 + b"\n",
    b"\x96" + b"\xff" * 8,
    b"X\xff\0\0\0",
]


def sources() -> dict[str, bytes]:
    """The same tokenizer as a file of this project, of safetensors, and of torch.save in both of its layouts."""
    small, files = seeded(SMALL), dict[str, bytes]()
    files["own"] = b""
    files["safetensors"] = safetensors.torch.save(small.state_dict())
    for name, zipped in (("zip", True), ("legacy", False)):
        buffer = io.BytesIO()
        torch.save({"state_dict": small.state_dict()}, buffer, _use_new_zipfile_serialization=zipped)
        files[name] = buffer.getvalue()
    return files


def damaged(whole: bytes, draw: random.Random) -> bytes:
    """Bytes changed, cut, doubled or put in, most often where names and sizes are."""
    data = bytearray(whole)
    ends = [(0, 4000), (max(0, len(data) - 8000), len(data)), (0, len(data))]
    for _ in range(draw.choice([1, 1, 3, 20])):
        low, high = draw.choice(ends)
        at = draw.randrange(low, max(low + 1, min(high, len(data))))
        kind = draw.randrange(5)
        if kind == 0 and at < len(data):
            data[at] = draw.randrange(256)
        elif kind == 1:
            del data[at : at + draw.choice([1, 8, 1000])]
        elif kind == 2:
            data[at:at] = draw.randbytes(draw.choice([1, 4, 300]))
        elif kind == 3:
            data[at:at] = draw.choice(PICKLED) * draw.choice([1, 2, 1000])
        else:
            data[at : at + 8] = b"\xff" * 8
    return bytes(data)


def rewritten(header: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A header or configuration in which one value is another one."""
    changed = json.loads(json.dumps(header))
    place: Any = changed
    while True:
        key = draw.choice(sorted(place))
        if not isinstance(place[key], dict) or not place[key] or draw.random() < 0.2:
            break
        place = place[key]
    place[key] = draw.choice(HOSTILE)
    return changed


CONFIG: dict[str, Any] = {
    "embed_dim": 8,
    "n_embed": 32,
    "norm_num_groups": 32,
    "block_out_channels": [32, 64, 32],
    "ddconfig": {"resolution": 16, "ch": 32, "ch_mult": [1, 2, 1], "attn_resolutions": [8], "tanh_out": False},
}


@pytest.mark.slow
def test_damaged_and_hostile_checkpoints_are_a_tokenizer_or_one_line(tmp_path: Path) -> None:
    draw, files, read = random.Random(7), sources(), 0
    own = tmp_path / "own.safetensors"
    vqgan.save(seeded(SMALL), own, {})
    files["own"] = own.read_bytes()
    length = int.from_bytes(files["own"][:8], "little")
    header = json.loads(files["own"][8 : 8 + length])
    about = json.loads(header["__metadata__"]["about"])
    for case in range(CASES):
        folder = tmp_path / str(case)
        folder.mkdir()
        path, kind = folder / "last.ckpt", draw.choice(["bytes", "bytes", "pickle", "header", "about", "config"])
        path.write_bytes(files[draw.choice(sorted(files))])
        if kind == "bytes":
            path.write_bytes(damaged(path.read_bytes(), draw))
        elif kind == "pickle":
            steps = b"".join(draw.choices(PICKLED, k=draw.choice([5, 50, 5000])))
            path.write_bytes(
                b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02" + steps + b"."
            )
        elif kind in ("header", "about"):
            changed = header | {
                "__metadata__": {"about": json.dumps(rewritten(about, draw) if kind == "about" else about)}
            }
            text = json.dumps(rewritten(changed, draw) if kind == "header" else changed).encode()
            path.write_bytes(len(text).to_bytes(8, "little") + text + files["own"][8 + length :])
        else:
            (folder / "config.json").write_text(json.dumps(rewritten(CONFIG, draw)))
        start = time.process_time()
        try:
            found, _ = convert.read(path)
            assert found.architecture.n_embed == SMALL.n_embed, (case, kind)
            assert found.codebook.shape == (SMALL.n_embed, SMALL.embed_dim), (case, kind)
            assert all(tensor.dtype == torch.float32 for tensor in found.state_dict().values()), (case, kind)
            read += 1
            line = ""
        except (ConfigError, DataError) as error:
            line = str(error)
        assert not line or line.isprintable(), (case, kind, line[:300])
        assert len(line) < 1000, (case, kind, line[:300])
        assert time.process_time() - start < SECONDS, (case, kind)
        path.unlink()
    assert 5 < read < CASES / 2, read
