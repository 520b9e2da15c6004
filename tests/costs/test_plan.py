"""vqlcmd plan: what it announces is what PyTorch saves and files take, and it runs and writes nothing."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from typer.testing import CliRunner

import vqlcmd.cli.plan
from tests.conftest import inside
from tests.costs.test_flops import BATCH, CODES, TINY, TOKENS, made, planned
from tests.factory import METHODS, build, codebook, integers, model_params, params
from tests.pipeline_imports import ROOT
from vqlcmd import methods
from vqlcmd.cli.plan import Machine
from vqlcmd.costs.flops import Sizes
from vqlcmd.costs.gpus import GPUS
from vqlcmd.costs.memory import activations
from vqlcmd.costs.plan import Data, plan
from vqlcmd.methods import save_method
from vqlcmd.params import Params
from vqlcmd.pretrained.described import FAMILIES, architecture
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.tokenizer.blocks import Architecture
from vqlcmd.tokenizer.vqgan import VQGAN
from vqlcmd.tokens import shards


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize(("dropout", "positions"), [(0.0, "sinusoidal"), (0.1, "sinusoidal"), (0.0, "rotary")])
@pytest.mark.parametrize("name", ["lcmd", "maskgit"])
def test_activations_are_what_autograd_saves(
    name: str, dropout: float, positions: str, classes: int, precision: str
) -> None:
    """Within 8% in float32, and never less than what bf16 takes; less one block, in which the gradients work."""
    network = {"layers": 4, "heads": 2, "width": 64, "dropout": dropout, "positions": positions}
    changes: dict[str, Any] = {"method": name, "lambda_ce": 0.0, "network": network, "embedding_dim": 16}
    method, teacher = (build(tokens=64, codes=32, classes=classes, **changes) for _ in range(2))
    weights = {parameter.untyped_storage().data_ptr() for parameter in method.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        label = integers(3, BATCH) if classes else None
        method.train()(integers(32, BATCH, 64), label, CounterRNG(0, "train", torch.arange(BATCH), 0), teacher.eval())
    held = sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) / BATCH
    sizes = Sizes(tokens=64, codes=32, inputs=16, classes=classes, layers=4, heads=2, width=64)
    students = 2 if name == "lcmd" else 1
    one_less = activations(dataclasses.replace(sizes, layers=3), students, dropout > 0, positions == "rotary")
    if precision == "float32":
        assert one_less == pytest.approx(held, rel=0.08)
    else:
        assert held < one_less * 1.02


def test_training_holds_24_bytes_a_parameter_beside_activations_on_a_gpu_20_and_its_state_20() -> None:
    method, teacher, best = made(3), made(3), made(3)
    optimizer = torch.optim.AdamW(method.parameters())
    sum(parameter.sum() for parameter in method.parameters()).backward()  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.dim()]
    weights, gradients = list(method.parameters()), [parameter.grad for parameter in method.parameters()]
    found, kept = planned(3), list(best.parameters())
    on_gpu = [*weights, *gradients, *moments, *teacher.parameters()]
    assert found.memory(on_cpu=False).fixed == sum(tensor.nbytes for tensor in on_gpu if tensor is not None)
    assert found.memory(on_cpu=True).fixed == sum(tensor.nbytes for tensor in [*on_gpu, *kept] if tensor is not None)
    assert found.state() == sum(tensor.nbytes for tensor in [*weights, *moments, *teacher.parameters(), *kept])


def test_so_many_images_fit_and_not_one_more() -> None:
    memory = planned().memory(on_cpu=True)
    assert memory.images(memory.fixed + 3 * memory.per_image) == 3
    assert memory.images(memory.fixed + 3 * memory.per_image - 1) == 2
    assert memory.images(memory.fixed - 1) == 0


def test_files_are_as_large_as_announced(tmp_path: Path) -> None:
    found = plan(params(**TINY, sample={"count": 3000}), Data(5000, 3))
    assert found.sizes.classes == 3
    for name, count in (("data/tokens", 5000), ("data/samples", 3000)):
        split = shards.Split(integers(CODES, count, TOKENS), integers(3, count), torch.arange(count))
        table = codebook(CODES, 7) if name == "data/tokens" else None
        shards.write_shards(tmp_path / name, {"train": split}, {"codes": CODES}, 2000, table)
        written = sum(path.stat().st_size for path in (tmp_path / name).iterdir())
        assert written == pytest.approx(found.disk()[name], rel=0.15)
    path = tmp_path / "model.safetensors"
    header = {"tokens": TOKENS, "grid": [1, TOKENS], "classes": ["a", "b", "c"], "vqgan_digest": ""}
    save_method(path, made(3), params(**TINY), header, codebook(CODES, 7))
    files = 1 + found.params.train.keep_best
    assert files * path.stat().st_size == pytest.approx(found.disk()["data/model"], rel=0.1)


@pytest.mark.parametrize(
    ("images", "views"), [({}, 1), ({"flip": True}, 2), ({"crop": "ten_crop"}, 10), ({"crop": "random"}, 1)]
)
def test_every_view_of_an_image_is_encoded_and_stored_and_evaluated_once(images: dict[str, Any], views: int) -> None:
    plain, found = planned(), planned(images={"size": 16, **images})
    for stage, factor in (("tokenize", views), ("bound", views), ("train", 1), ("reference", 1)):
        assert found.work()[stage].flops == pytest.approx(factor * plain.work()[stage].flops)
    codebook_bytes = 4 * CODES * 7
    assert found.disk()["data/tokens"] == views * 100 * (2 * TOKENS + 16) + codebook_bytes
    assert found.disk()["data/reference"] == plain.disk()["data/reference"]


def test_a_named_tokenizer_is_not_fitted_and_its_format_shapes_it() -> None:
    vqgan = {**TINY["vqgan"], "z_channels": 7, "checkpoint": "x", "format": "unleashing"}
    named: Params = params(**{**TINY, "vqgan": vqgan})
    assert plan(named, Data(1, 0)).work()["vqgan"].flops == 0
    assert planned().work()["vqgan"].flops > 0
    assert architecture(named.vqgan, 16).variant == FAMILIES["unleashing"]


@pytest.mark.parametrize(
    ("family", "attention", "parameters"), [("unleashing", [16], 63_283_075), ("maskgit", [], 54_515_587)]
)
def test_published_families_have_the_parameters_that_the_tokenizers_page_lists(
    family: str, attention: list[int], parameters: int
) -> None:
    """docs/tokenizers.md; what reading such a file would infer from its tensors."""
    shape = Architecture(variant=FAMILIES[family], attn_resolutions=tuple(attention))
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in VQGAN(shape).parameters()) == parameters


def test_every_method_can_be_planned_without_its_weights() -> None:
    for name in METHODS:
        real = methods.build(model_params(method=name, **TINY), codebook(CODES, 7), TOKENS, 3)
        assert planned(3, method=name).costs.parameters == sum(parameter.numel() for parameter in real.parameters())


def test_devices_share_what_can_be_shared() -> None:
    rates = {("cuda", "bf16"): 100.0}
    one, two = (Machine("cuda", devices, 0, 0, rates, "") for devices in (1, 2))
    assert one.seconds(40.0, "bf16", shared=True) == 1.0
    assert two.seconds(40.0, "bf16", shared=True) == 0.5
    assert two.seconds(40.0, "bf16", shared=False) == 1.0


def test_the_command_prints_a_plan_and_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from vqlcmd.cli.main import app

    monkeypatch.setattr(vqlcmd.cli.plan, "SECONDS", 0.01)
    monkeypatch.setenv("COLUMNS", "200")
    before = sorted(ROOT.rglob("data/**"))
    with inside(ROOT):
        done = CliRunner().invoke(app, ["plan", "--preset", "imagenet"])
    assert done.exit_code == 0, done.output
    for words in ("246,431,232", "1,281,167 images", "1000 classes", "102 calls", "dvc gc -w", "rm -r .state", "years"):
        assert words in done.output
    assert sorted(ROOT.rglob("data/**")) == before


def test_published_gpus_are_planned_by_arithmetic_without_touching_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """124 EFLOP of bf16 at 40% of eight times 989.5 TFLOP/s are 10.9 hours."""
    from vqlcmd.cli.main import app

    def measured() -> None:
        raise AssertionError

    monkeypatch.setattr(vqlcmd.cli.plan, "_machine", measured)
    monkeypatch.setenv("COLUMNS", "200")
    with inside(ROOT):
        done = CliRunner().invoke(app, ["plan", "--preset", "imagenet", "--gpu", "H100", "--count", "8"])
        assert done.exit_code == 0, done.output
        hours = 124e18 / (0.4 * 8 * 989.5e12) / 3600
        train = next(line for line in done.output.splitlines() if " train " in line and " E " in line)
        assert re.search(rf" {hours:.1f}\d* h|{hours:.0f}\.\d h", train), train
        for words in ("8 x h100", "Arithmetic, not measured", "80 GB are there", "data sheet"):
            assert words in done.output, words
        for options, said in (
            (["--gpu", "h10"], "h100"),
            (["--gpu", "h100", "--count", "3"], "--count"),
            (["--count", "2"], "--gpu"),
        ):
            done = CliRunner().invoke(app, ["plan", "--preset", "imagenet", *options])
            assert isinstance(done.exception, ConfigError)
            assert said in str(done.exception)


def test_published_rates_are_those_of_a_machine_that_can_exist() -> None:
    """bf16 in tensor cores is 2 to 16 times float32 outside of them, in every generation there has been."""
    for name, gpu in GPUS.items():
        assert 1.9 < gpu.bf16 / gpu.float32 <= 16.1, name
        assert 1e9 < gpu.memory < 1e12, name
        assert gpu.source, name


def test_data_that_nobody_has_counted_need_a_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.conftest import write_params
    from vqlcmd.cli.main import app

    monkeypatch.setattr(vqlcmd.cli.plan, "SECONDS", 0.01)
    write_params(tmp_path, {"dataset": "cats"})
    with inside(tmp_path):
        done = CliRunner().invoke(app, ["plan"])
        assert "--images COUNT" in str(done.exception)
        done = CliRunner().invoke(app, ["plan", "--images", "12", "--classes", "3"])
    assert "12 images (as --images says), 3 classes" in done.output
