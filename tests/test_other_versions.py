"""A model's file of another version: what builds and samples the model counts, and the keys of training do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import vqlcmd
from tests.factory import METHODS, build, codebook, integers, params
from tests.tokenizers import TINY, seeded
from vqlcmd import methods
from vqlcmd.costs.memory import model_costs
from vqlcmd.methods import method_class
from vqlcmd.params import saved
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.files import sha256
from vqlcmd.runtime.safetensors_file import load_weights, save_weights
from vqlcmd.tokenizer import vqgan

HEADER = {"tokens": 16, "grid": [4, 4], "classes": ["a", "b", "c"]}
OPTIONS: dict[str, Any] = {"sample_steps": 3, "guidance": 1.5, "weighting": "warped", "train": {"class_drop": 0.1}}


def write(folder: Path, name: str, **more: Any) -> None:
    chosen = params(method=name, **{**OPTIONS, **more})
    method = build(method=name, tokens=16, codes=TINY.n_embed, classes=3, **{**OPTIONS, **more})
    vqgan.save(seeded(TINY), folder / "vqgan.safetensors", {})
    header = {**HEADER, "vqgan_digest": sha256(folder / "vqgan.safetensors")}
    methods.save_method(folder / "model" / "model.safetensors", method, chosen, header, codebook(TINY.n_embed))


def rewrite(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """The same weights, with another header."""
    path = folder / "model" / "model.safetensors"
    tensors, about = load_weights(path, "model")
    edit(about)
    save_weights(path, "model", tensors, about)


def remove(values: dict[str, Any], key: str) -> None:
    *above, last = key.split(".")
    for name in above:
        values = values[name]
    del values[last]


def shown_by(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """What a folder samples, and the bound of some tokens."""
    model = vqlcmd.load(str(folder))
    tokens, rng = integers(TINY.n_embed, 2, 16), CounterRNG(0, "bound", torch.arange(2))
    return model.sample([0, 1, 2]), model.method.bound(tokens, torch.tensor([0, 1]), rng, 2)


@pytest.mark.parametrize("name", METHODS)
def test_keys_of_training_may_be_missing_new_or_other(name: str, tmp_path: Path) -> None:
    """A model that was published became unreadable with every key that `train` got."""
    write(tmp_path, name)
    images, bound = shown_by(tmp_path)
    costs = model_costs(vqlcmd.load(str(tmp_path)).about)

    def edit(about: dict[str, Any]) -> None:
        for key in about["of_training"]:
            remove(about["params"], key)
        about["params"] |= {"train": {"optimizer": "muon", "batch_size": "many"}, "lambda_cm": "none"}
        about["vqlcmd"] = "9.1.0"

    rewrite(tmp_path, edit)
    other, other_bound = shown_by(tmp_path)
    assert torch.equal(images, other)
    assert torch.equal(bound, other_bound)
    assert model_costs(vqlcmd.load(str(tmp_path)).about).parameters == costs.parameters


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in METHODS for key in (*saved.ALWAYS, *method_class(name).built_by)]
)
def test_a_key_that_builds_the_model_is_asked_for_with_the_version(name: str, key: str, tmp_path: Path) -> None:
    write(tmp_path, name)

    def edit(about: dict[str, Any]) -> None:
        remove(about["params"], key)
        about["vqlcmd"] = "9.1.0"

    rewrite(tmp_path, edit)
    if key in saved.ADDED:
        vqlcmd.load(str(tmp_path))
        return
    with pytest.raises(DataError, match=rf"another version of this project, 9\.1\.0: .*{key.split('.')[-1]}") as found:
        vqlcmd.load(str(tmp_path))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", ["lcmd", "mdlm"])
def test_a_file_from_before_a_key_was_added_is_the_model_that_it_was(name: str, tmp_path: Path) -> None:
    more = {"network": {"positions": saved.ADDED["network.positions"]}, "self_conditioning": 0.0}
    write(tmp_path, name, **more)
    images, bound = shown_by(tmp_path)

    def edit(about: dict[str, Any]) -> None:
        for key in saved.ADDED:
            remove(about["params"], key)

    rewrite(tmp_path, edit)
    other, other_bound = shown_by(tmp_path)
    assert torch.equal(images, other)
    assert torch.equal(bound, other_bound)
    write(tmp_path, name, **{**more, "network": {"positions": "rotary"}})
    assert not torch.equal(shown_by(tmp_path)[1], bound), "the file's own value counts"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *(("lcmd", key) for key in ("attention", "network.rotary", "schedule.power", "sampling.churn")),
        *(("d3pm", key) for key in ("attention", "network.rotary", "discrete.jumps", "discrete.schedule.duo")),
    ],
)
def test_an_unknown_key_that_may_change_the_model_is_one_line_with_the_version(
    name: str, key: str, tmp_path: Path
) -> None:
    write(tmp_path, name)

    def edit(about: dict[str, Any]) -> None:
        *above, last = key.split(".")
        values = about if above == ["sampling"] else about["params"]
        for name in above:
            values = values[name]
        values[last] = 2
        about["vqlcmd"] = "9.1.0"

    rewrite(tmp_path, edit)
    with pytest.raises(
        DataError, match=rf"9\.1\.0: it has `{key}`, which this version does not know: install"
    ) as found:
        vqlcmd.load(str(tmp_path))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("key", ["attention", "discrete.jumps", "discrete.schedule.duo"])
def test_unless_the_file_says_that_it_is_of_training(key: str, tmp_path: Path) -> None:
    write(tmp_path, "d3pm")
    images, _ = shown_by(tmp_path)

    def edit(about: dict[str, Any]) -> None:
        *above, last = key.split(".")
        values = about["params"]
        for name in above:
            values = values[name]
        values[last] = 2
        about["of_training"].append(key)

    rewrite(tmp_path, edit)
    assert torch.equal(shown_by(tmp_path)[0], images)


def test_a_file_lists_what_is_of_training_and_each_key_is_on_one_side(tmp_path: Path) -> None:
    write(tmp_path, "d3pm")
    _, about = load_weights(tmp_path / "model" / "model.safetensors", "model")
    assert about["vqlcmd"] == vqlcmd.__version__
    listed = about["of_training"]
    assert {"train", "drop", "schedule", "discrete.source", "discrete.schedule.mdlm"} <= set(listed)
    assert not {"network", "discrete", "discrete.timesteps", "discrete.schedule.d3pm", "seed"} & set(listed)


def test_a_knob_that_is_newer_than_the_model_is_asked_for_where_it_counts(tmp_path: Path) -> None:
    write(tmp_path, "maskgit")
    expected = vqlcmd.load(str(tmp_path)).sample([0, 1])
    rewrite(tmp_path, lambda about: about["sampling"]["own"].pop("eta"))
    model = vqlcmd.load(str(tmp_path))
    assert torch.equal(model.sample([0, 1]), expected)
    with pytest.raises(ConfigError, match="before there was `eta`"):
        model.sample([0, 1], sampler="remask_cap")
    assert len(model.sample([0, 1], sampler="remask_cap", eta=0.1)) == 2
    rewrite(tmp_path, lambda about: about["sampling"]["own"].update(churn=1))
    with pytest.raises(DataError, match=r"`sampling\.own\.churn`, which this version does not know"):
        vqlcmd.load(str(tmp_path))


def test_a_method_or_a_part_that_is_gone_is_one_line_with_the_version(tmp_path: Path) -> None:
    for name, value in (("method", "duo"), ("weighting", "sigmoid"), ("embedding", "rotary")):
        write(tmp_path, "lcmd")
        rewrite(tmp_path, lambda about, name=name, value=value: about["params"].update({name: value}))
        with pytest.raises(DataError, match=rf"version of this project, {vqlcmd.__version__}: .*'{value}'") as found:
            vqlcmd.load(str(tmp_path))
        assert "\n" not in str(found.value)
