"""What an addition takes, tried as an outsider would: on a copy of the repository, counting the files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline_imports import ROOT

pytestmark = pytest.mark.slow
# All tokens at once, from the class alone: the least that is a method.
METHOD = '''"""p(x) = prod_i p(x_i | class): every token by itself, in one pass."""

from typing import Any

import torch
from torch import Tensor

from vqlcmd.diffusion import losses
from vqlcmd.diffusion.discrete import Discrete
from vqlcmd.diffusion.guidance import guided
from vqlcmd.diffusion.markov import sample_categorical
from vqlcmd.params import Sampling
from vqlcmd.rng import CounterRNG


class Independent(Discrete):
    """Cross-entropy of tokens where all are masked."""

    supports_inpainting = False
    weights = {"ce": 1.0}

    def noised(self, tokens_BN: Tensor, u: Tensor, rng: CounterRNG) -> tuple[Tensor, Tensor]:
        return torch.full_like(tokens_BN, self.codes), torch.zeros_like(u)

    def forward(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, teacher: Any) -> dict[str, Tensor]:
        return {"ce": self.bound(tokens_BN, self.drop_classes(label, rng), rng, 1)}

    def sample(self, label: Tensor | None, rng: CounterRNG, how: Sampling, known: Tensor | None = None) -> Tensor:
        self.check(how, infill=known is not None)
        x_BN = torch.full((len(rng.rows), self.tokens), self.codes, device=rng.rows.device)
        t = torch.zeros(len(rng.rows), device=rng.rows.device)
        logits_BNK = guided(self.logits, how.guidance, null=self.classes)(x_BN, t, label)
        return sample_categorical(logits_BNK.softmax(dim=2), rng.uniform("code", self.tokens))

    def steps(self, how: Sampling) -> int:
        return 1

    def nfe(self, how: Sampling) -> int:
        return 2 if how.guidance else 1

    def bound(self, tokens_BN: Tensor, label: Tensor | None, rng: CounterRNG, levels: int) -> Tensor:
        x_BN, t = self.noised(tokens_BN, torch.zeros(len(tokens_BN), device=tokens_BN.device), rng)
        return losses.cross_entropy(self.logits(x_BN, t, label), tokens_BN)

    def alpha_bar(self, u: Tensor) -> Tensor:
        return 1 - u.double()
'''
METRIC = '''"""How far features scatter around their mean."""

from vqlcmd.evaluation.comparison import Comparison, Measure

FEATURES = "features"


def measure(comparison: Comparison) -> dict[str, Measure]:
    """`spread`: the trace of the covariance."""
    return {"spread": Measure(comparison.generated.features.var(dim=0).sum().item())}
'''
SEEN = ("vqlcmd", "stages", "pipelines", "tests", "presets", "tables", "docs", "data/manifests")


class Copy:
    """The repository, to be edited."""

    def __init__(self, folder: Path):
        self.folder, self.edited = folder, set[str]()
        for name in SEEN:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ("dvc.yaml", "pyproject.toml"):
            shutil.copy(ROOT / file, folder)
        shutil.copy(ROOT / "presets" / "digits.yaml", folder / "params.yaml")

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text that is there once."""
        text = (self.folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, (name, old, text.count(old))
        (self.folder / name).write_text(text.replace(old, new), encoding="utf-8")
        self.edited.add(name)

    def add(self, name: str, text: str) -> None:
        """A new file."""
        assert not (self.folder / name).exists()
        (self.folder / name).write_text(text, encoding="utf-8")
        self.edited.add(name)

    def add_parameter(self, after: str, new: str) -> None:
        """A line below the one that begins so, in params.yaml and every preset."""
        for path in (self.folder / "params.yaml", *(self.folder / "presets").glob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            line = next(line for line in text.splitlines() if line.startswith(after))
            path.write_text(text.replace(f"{line}\n", f"{line}\n{new} # ours\n"), encoding="utf-8")

    @property
    def code_files(self) -> set[str]:
        return {name for name in self.edited if name.endswith(".py")}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Python in the copy, with the copy's code."""
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, *command], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def test(self, *arguments: str) -> None:
        """Existing tests, as they are."""
        done = self.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *arguments)
        assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path / "repository")


def test_a_knob_of_sampling_is_its_methods_file_and_the_parameters(copy: Copy) -> None:
    file = "vqlcmd/methods/vq_diffusion.py"
    copy.edit(
        file,
        "    truncation: Annotated[",
        "    sharpness: Annotated[float, Field(gt=0, le=9, description='Factor on the logits.')]\n"
        "    truncation: Annotated[",
    )
    copy.edit(file, "truncated(logits_BNK.softmax", "truncated((how.own['sharpness'] * logits_BNK).softmax")
    check = ("-c", "from vqlcmd.params import load_params; print(load_params().sampling().own)")
    assert "`sample.vq_diffusion.sharpness` is missing: add it" in copy.run(*check).stderr
    copy.add_parameter("  vq_diffusion:", "    sharpness: 1.0")
    assert copy.code_files == {file}

    copy.edit("params.yaml", "method: lcmd ", "method: vq_diffusion ")
    assert copy.run(*check).stdout.strip() == "{'sharpness': 1.0, 'truncation': 0.86}"
    copy.edit("params.yaml", "    sharpness: 1.0", "    sharpness: 10")
    assert "`sample.vq_diffusion.sharpness` is 10, but must be less than or equal to 9" in copy.run(*check).stderr
    copy.edit("params.yaml", "    sharpness: 10", "    sharpness: 1.0")
    copy.edit("params.yaml", "method: vq_diffusion ", "method: lcmd ")

    command = ("-m", "vqlcmd.cli.main", "gallery")
    shown = " ".join(copy.run(*command, "--help").stdout.split())
    assert "--sharpness vq_diffusion Factor on the logits." in shown
    assert "--sharpness is 0, but must be greater than 0" in copy.run(*command, "x.png", "--sharpness", "0").stderr
    copy.test("tests/methods/test_contracts.py", "tests/test_generator.py", "-k", "vq_diffusion")
    copy.test("tests/repository/test_presets.py", "-k", "whole_parameter_file or says_whose")


def test_a_noise_schedule_is_its_file_and_the_parameters(copy: Copy) -> None:
    file = "vqlcmd/diffusion/schedule.py"
    copy.edit(
        file,
        'SCHEDULES: dict[str, type[Schedule]] = {"cosine": Cosine, "linear": Linear}',
        "@dataclass(frozen=True)\n"
        "class Bent(Linear):\n"
        "    def log_snr(self, t: Tensor) -> Tensor:\n"
        "        return super().log_snr((t.double() + t.double() ** 2) / 2)\n\n"
        "    def time(self, log_snr: Tensor) -> Tensor:\n"
        "        return ((1 + 8 * super().time(log_snr)).sqrt() - 1) / 2\n\n\n"
        'SCHEDULES: dict[str, type[Schedule]] = {"cosine": Cosine, "linear": Linear, "bent": Bent}',
    )
    check = ("-c", "from vqlcmd.params import load_params; print(load_params().schedule.name)")
    copy.edit("params.yaml", "  name: cosine ", "  name: bend ")
    assert "'bend', but must be 'cosine', 'linear' or 'bent'" in copy.run(*check).stderr
    copy.edit("params.yaml", "  name: bend ", "  name: bent ")
    copy.edit("params.yaml", "\ns: -1 ", "\ns: 0 ")
    assert copy.run(*check).stdout.strip() == "bent"
    assert copy.code_files == {file}
    copy.test("tests/diffusion/test_schedule.py", "-k", "Bent")
    copy.test("tests/methods/test_toy.py", "-k", "bent")


def test_a_method_is_its_file_and_its_name(copy: Copy) -> None:
    check = ("-c", "from vqlcmd.params import load_params; print(load_params().method)")
    copy.edit("params.yaml", "method: lcmd ", "method: independent ")
    assert "`method` is 'independent', but must be 'lcmd', " in copy.run(*check).stderr
    registry = "vqlcmd/methods/__init__.py"
    copy.add("vqlcmd/methods/independent.py", METHOD)
    copy.edit(registry, '"maskgit": "MaskGIT",', '"maskgit": "MaskGIT",\n    "independent": "Independent",')
    assert copy.run(*check).stdout.strip() == "independent"
    copy.edit("params.yaml", "method: independent ", "method: lcmd ")
    assert copy.code_files == {registry, "vqlcmd/methods/independent.py"}
    copy.test("tests/methods/test_contracts.py", "-k", "independent")
    # Its cost, its place in the imports and in dvc.yaml, and how it samples outside the pipeline.
    copy.test("tests/repository/test_pipeline.py", "-k", "train or floor or itself")
    copy.test("tests/test_generator.py", "-k", "independent")
    copy.test("tests/costs/test_flops.py", "-k", "independent")


def test_a_metric_on_present_features_is_its_file_and_its_name(copy: Copy) -> None:
    file = "vqlcmd/evaluation/metrics/spread.py"
    check = (
        "-c",
        "from vqlcmd.params import load_params; from tests.evaluation.test_registry import comparison\n"
        "from vqlcmd.evaluation.metrics import measure\n"
        "print(sorted(measure(comparison(9, 9, metrics=load_params().evaluate.metrics[:1]))))",
    )
    copy.edit("params.yaml", "  metrics:\n", "  metrics:\n  - spread\n")
    assert "`evaluate.metrics.0` is 'spread', but must be 'class_accuracy', " in copy.run(*check).stderr
    copy.add(file, METRIC)
    assert copy.run(*check).stdout.strip() == "['spread_proxy']"
    assert copy.code_files == {file}
    copy.test("tests/repository/test_pipeline.py", "-k", "evaluate")
