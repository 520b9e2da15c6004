"""Tokenizers are used through their protocol alone: one of another kind, of another grid, passes through everything."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vqlcmd
from tests import shades
from tests.conftest import inside, prepare, run_stages
from tests.factory import build, params
from tests.pipeline_imports import ROOT
from tests.tokenizers import SMALL, seeded
from vqlcmd import methods, tokenizer
from vqlcmd.cli import export
from vqlcmd.generator import Generator
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.safetensors_file import save_weights
from vqlcmd.tokens import shards

# The last two train a VQGAN, and count what that takes.
INSIDE = (
    "vqlcmd/tokenizer/",
    "vqlcmd/tokenizer_fit/",
    "vqlcmd/pretrained/",
    "stages/vqgan.py",
    "vqlcmd/costs/fitting.py",
)
"""Who knows what a VQGAN is made of: those who read and fit them, and the stage that makes one."""
HEADER = {"tokens": 8, "grid": [2, 4], "classes": ["a", "b"]}


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tokenizer.TOKENIZERS, shades.KIND, shades.ENTRY)


def test_nothing_else_knows_what_a_vqgan_is_made_of() -> None:
    private = {"vqlcmd.tokenizer.vqgan", "vqlcmd.tokenizer.blocks"}
    for file in [*ROOT.glob("vqlcmd/**/*.py"), *ROOT.glob("stages/*.py")]:
        name = file.relative_to(ROOT).as_posix()
        if name.startswith(INSIDE):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Attribute) and node.attr == "architecture":
                names = ["vqlcmd.tokenizer.vqgan"]
            assert not private & set(names), f"{name} goes past vqlcmd.tokenizer.Tokenizer"


def test_the_vqgan_is_a_tokenizer(tmp_path: Path) -> None:
    from vqlcmd.tokenizer import vqgan

    vqgan.save(seeded(SMALL), tmp_path / "vqgan.safetensors", {})
    loaded = tokenizer.load(tmp_path / "vqgan.safetensors")
    assert loaded.codes == len(tokenizer.codebook_table(loaded)) == SMALL.n_embed
    assert loaded.grid(16, 24) == (4, 6)
    tokens = loaded.encode(torch.zeros(2, 3, 16, 24))
    assert tokens.shape == (2, 24)
    assert loaded.decode(tokens, (4, 6)).shape == (2, 3, 16, 24)
    with pytest.raises(ConfigError, match="18 x 16 pixels, which must be multiples of 4"):
        loaded.grid(18, 16)


def test_a_file_of_another_kind_or_of_none_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "vqgan.safetensors"
    with pytest.raises(DataError, match=r"vqgan\.safetensors is missing: `dvc repro` makes it"):
        tokenizer.load(path)
    save_weights(path, "model", {"a": torch.zeros(1)}, {})
    with pytest.raises(DataError, match="is of the kind 'model', and holds no tokenizer of this project"):
        tokenizer.load(path)


def generator(folder: Path) -> Generator:
    """A fresh model of somebody else's tokens, and their tokenizer, loaded as users do."""
    shades.save(folder / "vqgan.safetensors")
    header = {**HEADER, "vqgan_digest": sha256(folder / "vqgan.safetensors")}
    method = build(tokens=8, codes=8, classes=2)
    methods.save_method(folder / "model" / "model.safetensors", method, params(), header, torch.empty(8, 0))
    return vqlcmd.load(str(folder))


def test_a_generator_draws_and_paints_on_a_grid_that_is_not_square(tmp_path: Path, registered: None) -> None:
    model = generator(tmp_path)
    assert model.sample([0, 1, 0], steps=2).shape == (3, 3, 16, 16)
    image = torch.arange(16).mul(16).expand(3, 16, 16).byte()
    hole = torch.zeros(16, 16, dtype=torch.bool)
    hole[9, 5] = True
    painted, kept = model.inpaint(image, hole, 1, 2, steps=2, whole_tokens=True)
    patch = torch.zeros(16, 16, dtype=torch.bool)
    patch[8:, 4:8] = True
    assert torch.equal((kept == 127).all(dim=0), patch), "a token is 8 pixels high and 4 wide"
    assert torch.equal(painted[:, :, ~patch], image[:, ~patch].expand(2, -1, -1))
    with pytest.raises(ConfigError, match=r"16 x 32 pixels does not give this model's 2 x 4 tokens"):
        model.inpaint(torch.zeros(3, 16, 32).byte(), torch.zeros(16, 32).bool(), 1, 1)


def test_a_codebook_is_asked_for_in_vain_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="`embedding: codebook` needs a codebook, and this tokenizer has none"):
        methods.build(params(embedding="codebook", embedding_dim=16).model_part(), torch.empty(8, 0), 8, 0)


@pytest.mark.slow
def test_a_tokenizer_of_another_kind_passes_through_every_stage(tmp_path: Path, registered: None) -> None:
    folder = prepare(tmp_path / "run", {"train_steps": 2, "sample": {"count": 20}})
    shades.save(folder / "data" / "vqgan.safetensors")
    run_stages(folder, "tokenize", "train", "sample", "bound", "reference", "evaluate", "figures")
    with inside(folder):
        for name in ("data/tokens", "data/samples"):
            header = shards.read_header(Path(name))
            assert header["grid"] == [2, 4]
            assert header["tokens"] == math.prod(header["grid"])
            assert header["codes"] == 8
        assert shards.read_codebook(Path("data/tokens")).shape == (8, 0)
        assert (Path("metrics") / "grid.png").is_file()
        export.decode_samples(Path("data"), Path("data/samples"), Path("out"), 2, 8)
        drawn = torch.from_numpy(np.array(Image.open("out/000000-0.png")))
        assert torch.equal(drawn[::8, ::4].repeat_interleave(8, 0).repeat_interleave(4, 1), drawn)
        assert vqlcmd.load("data").sample([3], steps=2).shape == (1, 3, 16, 16)
