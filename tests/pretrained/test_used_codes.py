"""A file beside a checkpoint that says which codes are tokens: VQ-Diffusion's table of all, or a list of some."""

import dataclasses
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import naive
from tests.conftest import prepare, run_stages
from tests.factory import normal
from tests.pretrained.test_codes import Gumbel, written
from vqlcmd.pretrained import convert
from vqlcmd.pretrained.used_codes import BYTES
from vqlcmd.runtime.errors import ConfigError, DataError, UserError
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.safetensors_file import read_about, save_weights
from vqlcmd.tokenizer import load, vqgan
from vqlcmd.tokens.header import read_header

IMAGES = normal(3, 3, 16, 16, seed=9).clamp(-1, 1)
# 24 codes, 5 tokens, which do not begin in their order; the last ones are tokens of codes that came before.
TABLE = [3, 3, 0, 1, 3, 2, 0, 0, 1, 4, 4, 2, 3, 0, 1, 1, 2, 4, 0, 3, 2, 1, 4, 0]
LIST = [20, 3, 4, 11, 0, 23, 7, 8]


def saved(path: Path, values: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, np.asarray(values))
    else:
        torch.save(torch.as_tensor(values), path)
    return path


def by_table(codes_BN: list[list[int]]) -> list[list[int]]:
    """What the table has for the best code of all."""
    return [[TABLE[code] for code in row] for row in codes_BN]


def first_codes(tokens_BN: list[list[int]]) -> list[list[int]]:
    """The first code of each token, found by looking through the table."""
    found = []
    for row in tokens_BN:
        found.append([])
        for token in row:
            code = 0
            while TABLE[code] != token:
                code += 1
            found[-1].append(code)
    return found


@pytest.mark.parametrize("make", [naive.Model, Gumbel])
@pytest.mark.parametrize("ending", ["pt", "npy"])
def test_a_table_gives_the_best_code_its_token_and_a_token_is_its_first_code(
    tmp_path: Path, make: type[naive.Model], ending: str
) -> None:
    model = make()
    held = model.file() if isinstance(model, Gumbel) else model.w.held
    used = saved(tmp_path / f"used.{ending}", TABLE)
    found, origin = convert.read(written(tmp_path / "a.ckpt", held), used=used)
    tokens = torch.tensor(by_table(model.tokens(IMAGES).tolist()))
    assert len(tokens.unique()) > 2
    assert torch.equal(found.encode(IMAGES), tokens)
    codes = torch.tensor(first_codes(tokens.tolist()))
    painted = model.decode_latents(model.lookup(codes)).clamp(-1, 1)
    torch.testing.assert_close(found.decode(tokens), painted, rtol=0, atol=1e-5)
    whole = model.w.held["quantize.embedding.weight"]
    assert torch.equal(found.codebook, whole[[TABLE.index(token) for token in range(5)]])
    assert (found.codes, origin["codes"]) == (5, naive.CODES)
    assert origin["used_codes"] == {"file": used.name, "sha256": sha256(used)}
    vqgan.save(found, tmp_path / "own.safetensors", {})
    again = load(tmp_path / "own.safetensors")
    assert (again.codes, again.grid(16, 16)) == (5, (4, 4))
    assert torch.equal(again.encode(IMAGES), tokens)
    assert torch.equal(again.decode(tokens, (4, 4)), found.decode(tokens))


@pytest.mark.parametrize("ending", ["pt", "npy"])
@pytest.mark.parametrize("kind", [np.int64, np.int32, np.int16, np.int8, np.uint8])
def test_a_list_is_that_of_the_checkpoint_itself(tmp_path: Path, ending: str, kind: type) -> None:
    """Tokens are counted in the order of the list, sorted or not, as in `quantize.used` of a file."""
    held = naive.Model().w.held
    inside, _ = convert.read(written(tmp_path / "inside.ckpt", {**held, "quantize.used": torch.tensor(LIST)}))
    used = saved(tmp_path / f"used.{ending}", np.array(LIST, kind))
    found, _ = convert.read(written(tmp_path / "a.ckpt", held), used=used)
    assert found.architecture == inside.architecture
    for name, tensor in inside.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    ordered, _ = convert.read(tmp_path / "a.ckpt", used=saved(tmp_path / f"sorted.{ending}", sorted(LIST)))
    renamed = torch.tensor(sorted(LIST))[ordered.encode(IMAGES)]
    assert torch.equal(renamed, torch.tensor(LIST)[found.encode(IMAGES)])


WRONG: list[tuple[Any, str]] = [
    ([1, 1, 2], "no list of different codes below 24"),
    ([1, 24], "no list of different codes below 24"),
    ([-1, 2], "no list of different codes below 24"),
    ([3], "no list of different codes below 24"),
    (np.arange(25), "no list of different codes below 24"),
    (np.zeros(0, np.int64), "no list of different codes below 24"),
    (3, "whole numbers in a row"),
    ([[1, 2]], "whole numbers in a row"),
    ([1.0, 2.0], "whole numbers in a row"),
    ([True, False], "whole numbers in a row"),
    (np.arange(24)[::-1].copy(), "a token of its own"),
    (np.zeros(24, np.int64), "without a gap"),
    ([*TABLE[:-1], 6], "without a gap"),
    ([*TABLE[:-1], -1], "without a gap"),
    ([*TABLE[:-1], 2**62], "without a gap"),
]


@pytest.mark.parametrize("ending", ["pt", "npy"])
@pytest.mark.parametrize(("values", "line"), WRONG, ids=range(len(WRONG)))
def test_values_that_say_nothing_of_codes_are_one_line(tmp_path: Path, ending: str, values: Any, line: str) -> None:
    used = saved(tmp_path / f"used.{ending}", values)
    with pytest.raises(DataError, match=f"^vqgan.used_codes is .*used.{ending}.*{line}") as caught:
        convert.read(written(tmp_path / "a.ckpt", naive.Model().w.held), used=used)
    assert str(caught.value).isprintable()


def contents(values: Any, save: Any) -> bytes:
    buffer = io.BytesIO()
    save(values, buffer)
    return buffer.getvalue()


class Shell:
    def __reduce__(self) -> Any:
        return os.mkdir, ("never",)


FILES: list[bytes] = [
    b"",
    b"974",
    b"\x93NUMPY",
    contents(torch.tensor(LIST), torch.save)[:-30],
    contents({"used": torch.tensor(LIST)}, torch.save),
    contents(LIST, torch.save),
    contents(Shell(), torch.save),
    contents(torch.zeros(2**18, dtype=torch.int64), torch.save),
    contents(np.array(["a"]), lambda values, file: np.save(file, values)),
    contents(np.array(LIST, ">i8"), lambda values, file: np.save(file, values)),
    contents(np.array([2**64 - 1, 1], np.uint64), lambda values, file: np.save(file, values)),
    contents(np.array([Shell()], object), lambda values, file: np.save(file, values)),
    contents(np.array(LIST), lambda values, file: np.save(file, values)).replace(b"(8,)", b"(9,)"),
]


@pytest.mark.parametrize("held", FILES, ids=range(len(FILES)))
def test_files_that_are_none_are_one_line_and_nothing_of_them_is_run(
    tmp_path: Path, held: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    used = tmp_path / "used.pt"
    used.write_bytes(held)
    with pytest.raises(DataError, match=r"^vqgan.used_codes.*used\.pt") as caught:
        convert.read(written(tmp_path / "a.ckpt", naive.Model().w.held), used=used)
    assert str(caught.value).isprintable()
    assert (len(held) > BYTES) == ("where" in str(caught.value)), "a large one is not read"
    assert not Path("never").exists()


def test_where_it_does_not_belong_it_is_refused(tmp_path: Path) -> None:
    held, used = naive.Model().w.held, saved(tmp_path / "used.pt", LIST)
    path = written(tmp_path / "a.ckpt", held)
    own = tmp_path / "own.safetensors"
    vqgan.save(convert.read(path)[0], own, {})
    told = written(tmp_path / "told.ckpt", {**held, "quantize.used": torch.tensor(LIST)})
    cases: list[tuple[Path, Path, type[UserError], str]] = [
        (path, tmp_path / "none.pt", ConfigError, "none.pt, which is not a file"),
        (path, tmp_path, ConfigError, "which is not a file"),
        (own, used, ConfigError, "own.safetensors is a file that this project wrote"),
        (told, used, ConfigError, "a list of its own, quantize.used"),
    ]
    for checkpoint, file, error, line in cases:
        with pytest.raises(error, match=r"vqgan\.used_codes is") as caught:
            convert.read(checkpoint, used=file)
        assert line in str(caught.value)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("change", [{"merged": 4}, {"merged": 6}, {"merged": 1}, {"merged": 24}, {"merged": -1}])
def test_a_file_whose_table_is_of_other_tokens_than_it_says_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    path = written(tmp_path / "a.ckpt", naive.Model().w.held)
    found, _ = convert.read(path, used=saved(tmp_path / "used.pt", TABLE))
    shape = found.architecture
    described = dataclasses.asdict(shape)
    described["variant"] |= change
    save_weights(tmp_path / "own.safetensors", "VQGAN", found.state_dict(), {"architecture": described})
    with pytest.raises(DataError, match="disagree"):
        vqgan.load(tmp_path / "own.safetensors")


def test_tokens_of_a_table_go_through_the_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "a.ckpt", naive.Model().w.held)
    used = saved(tmp_path / "taming_5.pt", TABLE)
    settings = {"checkpoint": str(path), "used_codes": str(used)}
    folder = prepare(tmp_path / "run", {"vqgan": settings, "embedding": "codebook", "embedding_dim": 6})
    run_stages(folder, "vqgan", "tokenize", "train", "sample")
    assert "taming_5.pt merges 24 codes into 5 tokens" in capsys.readouterr().out
    header = read_about(folder / "data/vqgan.safetensors")["provenance"]
    assert header["used_codes"] == {"file": "taming_5.pt", "sha256": sha256(used)}
    assert str(tmp_path) not in str(header), "places are nobody's business"
    assert read_header(folder / "data/tokens")["codes"] == 5
    shutil.rmtree(folder / "data")
    prepare(folder, {"vqgan": {"init": str(path), "used_codes": str(used)}})
    with pytest.raises(ConfigError, match="merges codes into tokens, and such a tokenizer cannot be trained"):
        run_stages(folder, "vqgan")
