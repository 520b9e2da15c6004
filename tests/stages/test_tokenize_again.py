"""Tokens of a run that was interrupted, or whose images could not all be read."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Tensor

from tests.conftest import run_stages
from tests.kinds import PICTURES
from tests.stages.test_tokenize import digests, header, tokenize
from vqlcmd.runtime import launcher, resume
from vqlcmd.runtime.errors import DataError, Interrupted
from vqlcmd.tokenizer import vqgan
from vqlcmd.tokens import shards


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the encoder had."""
    seen, original = list[int](), vqgan.VQGAN.encode

    def encode(self: vqgan.VQGAN, shown: Tensor, precision: str) -> Tensor:
        seen.append(len(shown))
        return original(self, shown, precision)

    monkeypatch.setattr(vqgan.VQGAN, "encode", encode)
    return seen


def test_an_interrupted_run_goes_on_with_what_is_encoded(
    ready: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"crop": "ten_crop", "tokenize": {"batch_size": 20, "shard_images": 33}}
    tokenize(ready, "zip", **settings)
    expected = digests(ready)
    encoded.clear()

    @contextmanager
    def asked_for_the_third_time() -> Iterator[Callable[[], bool]]:
        asked = iter([False, False, True])
        yield lambda: next(asked)

    shutil.rmtree(ready / "data" / "tokens")
    with monkeypatch.context() as patch:
        patch.setattr(launcher, "graceful", asked_for_the_third_time)
        with pytest.raises(Interrupted, match="stopped after 6 of 12 images"):
            tokenize(ready, "zip", **settings)
    assert encoded == [20] * 3
    assert not (ready / "data" / "tokens").exists()
    assert "goes on after" not in capsys.readouterr().out
    tokenize(ready, "zip", **settings)
    assert "tokenize: goes on after 6 of 12 images" in capsys.readouterr().out
    assert encoded == [20] * 6, "three batches more"
    assert digests(ready) == expected
    assert not list(ready.glob(".state/tokenize/*"))


def test_a_run_that_is_interrupted_at_its_very_end_loses_no_shard(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shards had been moved into place and the state was still there: the next run listed what it did not have."""
    tokenize(ready, "zip", crop="ten_crop")
    expected = digests(ready)
    for interrupted in ("save_weights", "write_json"):
        with monkeypatch.context() as patch:
            patch.setattr(shards, interrupted, interrupt)
            with pytest.raises(KeyboardInterrupt):
                tokenize(ready, "zip", crop="ten_crop")
        tokenize(ready, "zip", crop="ten_crop")
        assert digests(ready) == expected
    with monkeypatch.context() as patch:
        patch.setattr(resume.State, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize(ready, "zip", crop="ten_crop")
    tokenize(ready, "zip", crop="ten_crop")
    assert digests(ready) == expected
    assert shards.read_split(ready / "data" / "tokens", "train")


def test_a_state_whose_shards_are_damaged_is_not_gone_on_from(
    ready: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize(ready, "zip", crop="ten_crop")
    expected = digests(ready)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "save_weights", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize(ready, "zip", crop="ten_crop")
    next(ready.glob(".state/tokenize/*/shards/train-000001.tar")).write_bytes(b"half")
    encoded.clear()
    tokenize(ready, "zip", crop="ten_crop")
    assert sum(encoded) >= 120
    assert digests(ready) == expected


def test_what_could_not_be_read_is_tried_again(ready: Path) -> None:
    """A disk that failed for a moment: the state had remembered for ever, and the manifest cannot know."""
    place = ready.parent / "pictures" / "tree" / "bee" / "1.jpg"
    damaged = {**PICTURES, "bee/1.jpg": b"x" * len(PICTURES["bee/1.jpg"])}
    with pytest.raises(DataError, match="1 of 12 images"):
        tokenize(ready, "folder", damaged)
    place.write_bytes(PICTURES["bee/1.jpg"])
    run_stages(ready, "tokenize")
    assert header(ready)["skipped"] == {}


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_previews_are_kept_though_the_first_are_broken(ready: Path) -> None:
    pictures = {name: b"" if name.startswith("ant") else contents for name, contents in PICTURES.items()}
    tokenize(ready, "zip", pictures, skip_broken=True)
    images, labels = shards.read_previews(ready / "data" / "tokens")
    assert len(images) == len(labels) > 0


def test_broken_members_are_left_out_with_all_their_squares_and_stand_in_the_header(
    ready: Path, encoded: list[int]
) -> None:
    pictures = {**PICTURES, "bee/1.jpg": b"", "cat/0.png": PICTURES["cat/0.png"][:60]}
    with pytest.raises(DataError, match=r"2 of 12 images cannot be read: pictures\.zip/bee/1\.jpg \("):
        tokenize(ready, "zip", pictures, crop="ten_crop")
    assert [path.name for path in (ready / "data").iterdir() if "tokens" in path.name] == [], "nothing half done"
    encoded.clear()
    tokenize(ready, "zip", pictures, crop="ten_crop", skip_broken=True)
    assert encoded == [], "all was kept"
    assert list(header(ready)["skipped"]) == ["pictures.zip/bee/1.jpg", "pictures.zip/cat/0.png"]
    assert sum(split["images"] for split in header(ready)["splits"].values()) == 100
