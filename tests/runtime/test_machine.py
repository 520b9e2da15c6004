"""What only makes things faster: pages that glibc keeps, and compilation, which gives the same numbers."""

import copy as copies
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters

from tests.conftest import run_stages
from tests.factory import CODES, TOKENS, integers, made, sampling
from vqlcmd.diffusion import transformer
from vqlcmd.diffusion.transformer import Block, Transformer
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import machine, paths
from vqlcmd.runtime.errors import ConfigError
from vqlcmd.tokens.shards import read_split

FAULTS = """
import resource, sys, torch
from vqlcmd.runtime.machine import disable_malloc_trim
if sys.argv[1] == "keep":
    disable_malloc_trim()
def step():
    return [torch.ones(10_000_000) for _ in range(2)]
for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_memory_that_is_kept_is_not_faulted_in_again() -> None:
    """Two tensors of 40 MB, ten times. A few pages come back where the machine reclaims idle ones itself."""

    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert 5 * faults("keep") < faults("let go")


def test_without_a_compiler_the_function_itself_runs_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert machine.compiled(len) is len
    assert capsys.readouterr().err == "nothing is compiled: g++, a compiler of C++, is not installed\n"
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert machine.compiled(len) is len
    assert "nothing is compiled: no-such-compiler, a" in capsys.readouterr().err


@pytest.mark.parametrize(("value", "compiles"), [(None, False), ("0", False), ("1", True)])
def test_compilation_is_off_unless_asked_for(
    value: str | None, compiles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("VQLCMD_COMPILE", value)
    assert paths.compiles() == compiles


def test_another_word_than_0_or_1_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQLCMD_COMPILE", "yes")
    with pytest.raises(ConfigError, match="VQLCMD_COMPILE is 'yes', but must be 1 or 0"):
        paths.compiles()


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """What compile_network replaces comes back at the end, and compiled code goes to a folder of the test's own."""
    for module in (Transformer, Block):
        monkeypatch.setattr(module, "forward", module.forward)
    # Set, so that it is unset at the end whatever becomes of it.
    monkeypatch.setenv(machine.INDUCTOR, "")
    monkeypatch.delenv(machine.INDUCTOR)
    monkeypatch.setenv("VQLCMD_CACHE", str(tmp_path / "cache"))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks are traced, which is what differs, and then run as they are: seconds in place of half a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))


@pytest.mark.usefixtures("uncompiled")
# Of PyTorch's own modules.
@pytest.mark.filterwarnings("default")
def test_a_block_is_compiled_once_for_all_layers_and_sizes_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    without_kernels(monkeypatch)
    transformer.compile_network()
    rng, seen = CounterRNG(7, "test", torch.arange(6)), []
    for layers in (2, 5):
        method = made("lcmd", network={"layers": layers})
        for images in (6, 4, 3):
            method.sample(integers(3, images), rng.first_rows(images), sampling(2))
            seen.append((counters["stats"]["unique_graphs"], counters["stats"]["calls_captured"]))
    assert seen[0][0] == 1
    assert len(set(seen)) == 1, seen


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.filterwarnings("default")
def test_with_cuda_graphs_the_whole_pass_is_compiled_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda function, **how: asked.append((function, how)) or function)
    whole, block = Transformer.forward, Block.forward
    transformer.compile_network(cuda_graphs=True)
    transformer.compile_network()
    assert asked == [
        (whole, {"mode": "reduce-overhead", "dynamic": False}),
        (block, {"mode": "default", "dynamic": True}),
    ]


@pytest.mark.usefixtures("uncompiled")
def test_what_counts_costs_on_the_meta_device_compiles_nothing() -> None:
    """PyTorch's compiler fails there on the way back, where it looks for what to keep."""
    transformer.compile_network()
    with torch.device("meta"):
        block = Block(width=8, heads=2, classes=0, dropout=0.0, causal=False)
        block(torch.zeros(2, 3, 8), torch.zeros(2, 8), None).sum().backward()
    assert not counters["stats"]


@pytest.mark.usefixtures("uncompiled")
def test_compiled_code_is_kept_where_downloads_are_unless_pytorch_was_told_another_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    machine.compiled(len)
    assert os.environ[machine.INDUCTOR] == str(tmp_path / "cache" / "compiled")
    monkeypatch.setenv(machine.INDUCTOR, "elsewhere")
    machine.compiled(len)
    assert os.environ[machine.INDUCTOR] == "elsewhere"


@pytest.mark.usefixtures("uncompiled")
def test_where_no_folder_can_be_made_compilation_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    (tmp_path / "file").touch()
    monkeypatch.setenv("VQLCMD_CACHE", str(tmp_path / "file"))
    machine.compiled(len)
    assert machine.INDUCTOR not in os.environ


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.skipif(shutil.which("g++") is None, reason="nothing to compile with")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("name", "whole"), [("lcmd", False), ("lcmd", True), ("autoregressive", False)])
def test_compiled_and_eager_agree(name: str, whole: bool, tmp_path: Path) -> None:
    """Loss terms within 1e-5, gradients within 1e-5 of their length, and the same samples; found again, the same."""
    rng = CounterRNG(7, "test", torch.arange(4))
    tokens, label = integers(CODES, 4, TOKENS), integers(3, 4, seed=1)

    def answers() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        method, teacher = made(name).train(), made(name)
        terms = torch.stack([term.mean() for term in method(tokens, label, rng, copies.deepcopy(teacher)).values()])
        terms.sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
        return terms.detach(), gradients, teacher.sample(label, rng, sampling(3))

    eager = answers()
    transformer.compile_network(cuda_graphs=whole)
    compiled = answers()
    assert counters["stats"]["unique_graphs"] > 0
    assert torch.allclose(eager[0], compiled[0], rtol=1e-5)
    assert (eager[1] - compiled[1]).norm() < 1e-5 * eager[1].norm()
    assert torch.equal(eager[2], compiled[2])

    misses, hits = (counters["inductor"][f"fxgraph_cache_{each}"] for each in ("miss", "hit"))
    assert misses > 0
    assert any((tmp_path / "cache" / "compiled").iterdir())
    # As in a new process: everything is traced again, and compiled code comes from the folder.
    torch._dynamo.reset()
    again = answers()
    assert counters["inductor"]["fxgraph_cache_miss"] == misses
    assert counters["inductor"]["fxgraph_cache_hit"] == hits + (misses + hits)
    assert all(map(torch.equal, compiled, again))


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.skipif(shutil.which("g++") is None, reason="nothing to compile with")
@pytest.mark.filterwarnings("default")
def test_the_stages_compiled_end_at_the_same_loss_and_draw_the_same_samples(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses within 1e-4, 99% of the tokens."""

    def found() -> tuple[float, torch.Tensor]:
        loss = json.loads((copy / "metrics" / "train.json").read_text(encoding="utf-8"))["heldout_loss"]
        return loss, read_split(copy / "data" / "samples", "samples").tokens

    loss, tokens = found()
    monkeypatch.setenv("VQLCMD_COMPILE", "1")
    monkeypatch.setenv("VQLCMD_STATE", str(copy / "new"))
    shutil.rmtree(copy / "data" / "samples")
    run_stages(copy, "train", "sample")
    assert counters["stats"]["unique_graphs"] > 0
    compiled_loss, compiled_tokens = found()
    assert compiled_loss == pytest.approx(loss, rel=1e-4)
    assert (compiled_tokens == tokens).double().mean() > 0.99
