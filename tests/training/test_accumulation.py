"""A batch in pieces: what one process cannot hold at once gives the same training, up to the order of sums."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from tests.factory import CODES, TOKENS, build, integers, train_settings
from vqlcmd.params import ModelParams
from vqlcmd.runtime.resume import State
from vqlcmd.tokens.shards import Split
from vqlcmd.training.loop import _pieces, train

SPLIT = Split(integers(CODES, 40, TOKENS), integers(3, 40, seed=1), torch.arange(40))


@pytest.mark.parametrize("name", get_args(ModelParams.model_fields["method"].annotation))
def test_pieces_of_a_batch_train_as_the_whole_batch_does(name: str, tmp_path: Path) -> None:
    """Also VQ-Diffusion's memory of its losses, which moves once a step and not once a piece."""
    settings, trained = {"batch_size": 12, "learning_rate": 1e-3, "save_every": 100, "log_every": 3}, []
    for micro_batch in (None, 5):
        method = build(method=name, classes=3, train=settings)
        with State(tmp_path / f"{micro_batch}") as state:
            options = {"steps": 6, "seed": 5, "state": state, "micro_batch": micro_batch}
            _, rows = train(method, SPLIT, SPLIT, train_settings(**settings), **options)
        trained.append((method.state_dict(), rows))
    (whole, whole_rows), (pieces, piece_rows) = trained
    for key, values in whole.items():
        if "qkv.bias" in key:
            # A key's bias changes no attention: its gradient is rounding alone, whose sign Adam makes a full step.
            values, pieces[key] = (torch.cat([each.chunk(3)[0], each.chunk(3)[2]]) for each in (values, pieces[key]))
        assert torch.allclose(values, pieces[key], atol=2e-5), key
    for one, other in zip(whole_rows, piece_rows, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_pieces_cover_a_part_of_the_batch_with_shares_that_sum_to_one() -> None:
    pieces = _pieces(slice(8, 20), 5)
    assert [piece for piece, _ in pieces] == [slice(8, 13), slice(13, 18), slice(18, 20)]
    assert sum(share for _, share in pieces) == pytest.approx(1)
    assert _pieces(slice(0, 4), None) == [(slice(0, 4), 1.0)]
