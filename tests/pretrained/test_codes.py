"""Codes that are chosen by a projection (Gumbel), and codebooks of which some codes alone are in use."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import naive
from tests.checkpoints import refused
from tests.conftest import prepare, run_stages
from tests.factory import normal
from vqlcmd.pretrained import convert
from vqlcmd.runtime.errors import DataError
from vqlcmd.tokenizer import vqgan

IMAGES = normal(3, 3, 16, 16, seed=9).clamp(-1, 1)
USED = torch.tensor([20, 3, 4, 11, 0, 23, 7, 8])


class Gumbel(naive.Model):
    """taming's GumbelVQ without noise: the code is the argmax of a projection."""

    dim = latent = 10

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.w("quantize.proj.weight", naive.CODES, self.dim, 1, 1)
        self.w("quantize.proj.bias", naive.CODES)

    def scores(self, images: Tensor) -> Tensor:
        weight = self.w.held["quantize.proj.weight"][:, :, 0, 0]
        scores = torch.einsum("kd,bdhw->bkhw", weight, self.encoder(images))
        return scores.flatten(2) + self.w.held["quantize.proj.bias"][:, None]

    def tokens(self, images: Tensor) -> Tensor:
        return self.scores(images).argmax(dim=1)

    def file(self) -> dict[str, Tensor]:
        names = {"quantize.embedding.weight": "quantize.embed.weight"}
        return {names.get(name, name): tensor for name, tensor in self.w.held.items()}


def written(path: Path, held: dict[str, Any]) -> Path:
    torch.save({"state_dict": held}, path)
    return path


def test_a_gumbel_tokenizer_takes_the_code_of_the_largest_projection(tmp_path: Path) -> None:
    model = Gumbel()
    found, _ = convert.read(written(tmp_path / "a.ckpt", model.file()))
    tokens = model.tokens(IMAGES)
    assert len(tokens.unique()) > 3
    assert torch.equal(found.encode(IMAGES), tokens)
    painted = model.decode_latents(model.lookup(tokens))
    torch.testing.assert_close(found.decode_latents(found.quantize.lookup(tokens)), painted, rtol=0, atol=1e-5)
    vqgan.save(found, tmp_path / "own.safetensors", {})
    again = vqgan.load(tmp_path / "own.safetensors")
    assert again.architecture == found.architecture
    assert torch.equal(again.encode(IMAGES), tokens)


def test_a_codebook_whose_projection_is_missing_is_refused(tmp_path: Path) -> None:
    held = {name: tensor for name, tensor in Gumbel().file().items() if "proj.weight" not in name}
    refused(DataError, written(tmp_path / "a.ckpt", held), "quantize.embedding.weight")


def test_of_a_gumbel_tokenizer_with_used_codes_the_largest_of_these_counts(tmp_path: Path) -> None:
    model = Gumbel()
    found, origin = convert.read(written(tmp_path / "a.ckpt", {**model.file(), "quantize.used": USED}))
    tokens = model.scores(IMAGES)[:, USED].argmax(dim=1)
    assert torch.equal(found.encode(IMAGES), tokens)
    painted = model.decode_latents(model.lookup(USED[tokens]))
    torch.testing.assert_close(found.decode_latents(found.quantize.lookup(tokens)), painted, rtol=0, atol=1e-5)
    assert (len(found.codebook), origin["codes"]) == (len(USED), naive.CODES)


def test_of_a_codebook_with_used_codes_the_nearest_of_these_counts(tmp_path: Path) -> None:
    model = naive.Model()
    plain, _ = convert.read(written(tmp_path / "plain.ckpt", model.w.held))
    path = written(tmp_path / "a.ckpt", {**model.w.held, "quantize.used": USED})
    found, _ = convert.read(path)
    assert torch.equal(found.codebook, plain.codebook[USED])
    whole, kept = plain.encode(IMAGES), found.encode(IMAGES)
    of_used = torch.isin(whole, USED)
    assert of_used.any()
    assert torch.equal(USED[kept][of_used], whole[of_used])
    z_BDN = plain.latents(IMAGES).flatten(2)
    distances = (z_BDN[:, None] - plain.codebook[USED][None, :, :, None]).square().sum(dim=2)
    assert torch.equal(kept, distances.argmin(dim=1))


@pytest.mark.parametrize(
    "used",
    [
        torch.tensor([1, 1, 2]),
        torch.tensor([1, 24]),
        torch.tensor([-1, 2]),
        torch.tensor([3]),
        torch.tensor([]),
        torch.tensor(3),
        torch.tensor([[1, 2]]),
        torch.tensor([[1, 1], [2, 2]]),
        torch.tensor([1.5, 2.0]),
        torch.tensor([torch.nan, 2.0]),
    ],
)
def test_a_list_of_used_codes_that_is_none_is_refused(tmp_path: Path, used: Tensor) -> None:
    path = written(tmp_path / "a.ckpt", {**naive.Model().w.held, "quantize.used": used})
    refused(DataError, path, "quantize.used is no list of different codes below 24")


def test_the_stage_says_that_only_some_codes_are_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "a.ckpt", {**naive.Model().w.held, "quantize.used": USED})
    run_stages(prepare(tmp_path / "run", {"vqgan": {"checkpoint": str(path)}}), "vqgan")
    assert "lists 8 of 24 codes as used" in capsys.readouterr().out
