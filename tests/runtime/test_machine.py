"""What only makes things faster: pages that glibc keeps, and compilation that gives the same numbers."""

import copy
import shutil
import subprocess
import sys

import pytest
import torch

from tests.factory import CODES, TOKENS, integers, made, sampling
from vqlcmd.diffusion import transformer
from vqlcmd.diffusion.transformer import Transformer
from vqlcmd.rng import CounterRNG
from vqlcmd.runtime import machine, paths
from vqlcmd.runtime.errors import ConfigError

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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="nothing to compile with")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["lcmd", "autoregressive"])
def test_compiled_and_eager_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss terms within 1e-5, gradients within 1e-5 of their length, and the same samples."""
    rng = CounterRNG(7, "test", torch.arange(4))
    tokens, label = integers(CODES, 4, TOKENS), integers(3, 4, seed=1)

    def answers() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        method, teacher = made(name).train(), made(name)
        terms = torch.stack([term.mean() for term in method(tokens, label, rng, copy.deepcopy(teacher)).values()])
        terms.sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
        return terms.detach(), gradients, teacher.sample(label, rng, sampling(3))

    eager = answers()
    # What compile_network replaces comes back at the end.
    monkeypatch.setattr(Transformer, "forward", Transformer.forward)
    transformer.compile_network()
    compiled = answers()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert torch.allclose(eager[0], compiled[0], rtol=1e-5)
    assert (eager[1] - compiled[1]).norm() < 1e-5 * eager[1].norm()
    assert torch.equal(eager[2], compiled[2])
