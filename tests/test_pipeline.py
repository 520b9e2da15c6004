"""dvc.yaml says what the code does: deps are the imports, params are the ones a stage reads."""

import re
from pathlib import Path

import pytest
import yaml

from tests.pipeline_imports import ROOT, direct, transitive

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
LAYERS = [
    "errors machine",
    "files noise yamlfile distributed problems moments sources/listing",
    "crops sources/digits sources/folder sources/archives sources/lmdb",
    "sources/tar sources/zip",
    "sources/__init__",
    "config",
    "weights manifest shards pickles vqgan_blocks",
    "vqgan tensors layouts sidecar",
    "vqgan_fit operations published",
    "images",
    "schedule",
    "gaussian weighting method kernel",
    "embedding losses collapse network guidance",
    "discrete",
    "methods/lcmd methods/d3pm methods/vq_diffusion methods/maskgit methods/autoregressive",
    "methods/__init__",
    "checkpoint progress streaming",
    "models trainer plots download",
    "generator",
    "judge",
    "features",
    "metrics tables",
    "plan",
    "__init__",
]
# Read to refuse an impossible run before it starts; they change no output.
CHECKED_ONLY = {"train": {"guidance", "sampler", "sample_steps", "sample"}}
# Methods of Params that read more than one key.
READERS = {"sampling": {"sampler", "sample_steps", "guidance", "sample"}}
ORDER = [f"vqlcmd/{name}.py" for layer in LAYERS for name in layer.split()]
LAYER_OF = {f"vqlcmd/{name}.py": number for number, layer in enumerate(LAYERS) for name in layer.split()}


def _names(files: set[Path]) -> set[str]:
    return {file.relative_to(ROOT).as_posix() for file in files}


def expected_code(stage: str) -> list[str]:
    """The stage's own modules, and for a stage that builds a method what any method imports."""
    files = transitive(ROOT / "stages" / f"{stage}.py")
    if ROOT / "vqlcmd/methods/__init__.py" in files:
        for method in (ROOT / "vqlcmd/methods").glob("[a-z]*.py"):
            files |= transitive(method) - {method}
    return sorted(name for name in _names(files))


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_yaml_lists_exactly_the_modules_a_stage_imports(stage: str) -> None:
    listed = sorted(dep for dep in STAGES[stage]["deps"] if dep.endswith(".py") and "${" not in dep)
    assert listed == expected_code(stage)


def test_imports_point_one_way() -> None:
    files = sorted(ROOT.glob("vqlcmd/**/*.py"))
    assert _names(set(files)) == set(ORDER), "a new module takes its place in LAYERS"
    for file in files:
        name = file.relative_to(ROOT).as_posix()
        for imported in _names(direct(file)) - {"vqlcmd/__init__.py"}:
            assert not imported.startswith("stages/"), f"{name} imports {imported}"
            assert LAYER_OF[imported] < LAYER_OF[name], f"{name} imports {imported}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_only_the_parameters_that_dvc_yaml_lists(stage: str) -> None:
    text = (ROOT / "stages" / f"{stage}.py").read_text(encoding="utf-8")
    listed = STAGES[stage]["params"]
    read = set(re.findall(r"params\.((?!model_|yaml\b)\w+(?:\.(?!model_)\w+)*)", text))
    for name, keys in READERS.items():
        read = (read - {name}) | (keys if name in read else set())
    for key in read - CHECKED_ONLY.get(stage, set()):
        covered = any(f"{key}.".startswith(f"{known}.") or f"{known}.".startswith(f"{key}.") for known in listed)
        assert covered, f"stages/{stage}.py reads params.{key}, which dvc.yaml does not list"


def test_no_python_file_is_over_300_lines() -> None:
    for folder in ("vqlcmd", "stages", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            assert len(file.read_text(encoding="utf-8").splitlines()) <= 300, file


if __name__ == "__main__":
    # python -m tests.test_pipeline: the deps as they should stand in dvc.yaml.
    for name in STAGES:
        print(name, *expected_code(name), sep="\n      - ")
