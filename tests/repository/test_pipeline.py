"""dvc.yaml says what the code does: deps are the code that can change numbers, params are the ones a stage reads."""

import re
from pathlib import Path

import pytest
import yaml

from stages.train import NOT_RESULTS
from tests.pipeline_imports import ROOT, direct, transitive
from vqlcmd.params import Train
from vqlcmd.runtime import pipeline
from vqlcmd.runtime.yaml_file import read_yaml

PIPELINES = {
    name: yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))["stages"]
    for name in ("dvc.yaml", "pipelines/text.yaml")
}
STAGES = {f"{stage} of {name}": about for name, stages in PIPELINES.items() for stage, about in stages.items()}
SHARED = ("method", "train", "sample", "bound")
# How a stage runs, whether it is let run, and how parameters are read: no edit there changes what a stage makes of the
# same parameters.
NEUTRAL = (
    "vqlcmd/runtime/",
    "vqlcmd/costs/",
    "vqlcmd/params/",
    "vqlcmd/loggers.py",
    "vqlcmd/live.py",
    "vqlcmd/torchvision_guard.py",
    "vqlcmd/__init__.py",
    "stages/__init__.py",
    "stages/text/__init__.py",
)
# Rooms of vqlcmd/, from the ground up: a room imports from lower floors only.
FLOORS = [
    "runtime rng lr_schedule torchvision_guard precision",
    "params loggers images tokenizer tokens figures efficientnet",
    "tokenizer_fit pretrained diffusion evaluation experiments live text text_metrics",
    "methods training trained",
    "generator text_generator costs reports",
    "sharing unfinished",
    "stages page",
    "cli",
]
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor.split()}
# Read to refuse an impossible run before it starts, and kept in the model's header for whoever samples from it without
# saying how, or for pictures on the way; they change no weight, so that another way to sample trains nothing again.
CHECKED_ONLY = {
    "stages.train": {"guidance", "sampler", "sample_steps", "sample", "sample.batch_size", "domain", "train.logger"},
    "stages.sample": {"domain"},
    "stages.vqgan": {"train.logger"},
}
# Methods of Params that read more than one key.
READERS = {
    "sampling": {"sampler", "sample_steps", "guidance", "sample"},
    "language_model": {"reference"},
    "unit": set(),
}
MOST_FILES = 14


def _name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def _room(name: str) -> str:
    parts = name.split("/")
    return "stages" if parts[0] == "stages" else parts[1].removesuffix(".py")


def module(stage: str) -> str:
    """What a stage runs, such as stages.train."""
    command = STAGES[stage]["cmd"]
    assert re.fullmatch(r"python -m stages(\.\w+)+", command), command
    return command.removeprefix("python -m ")


def file_of(stage: str) -> Path:
    return ROOT / f"{module(stage).replace('.', '/')}.py"


def imported_by(stage: str) -> set[str]:
    """The files behind a stage, and for one that builds a method those behind any method."""
    files = transitive(file_of(stage))
    if ROOT / "vqlcmd/methods/__init__.py" in files:
        for method in (ROOT / "vqlcmd/methods").glob("[a-z]*.py"):
            files |= transitive(method) - {method}
    return {_name(file) for file in files}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_imports_only_what_dvc_yaml_lists_or_what_is_neutral(stage: str) -> None:
    listed = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("vqlcmd/", "stages/"))]
    for name in imported_by(stage):
        covered = any(name == dep or name.startswith(f"{dep}/") for dep in listed)
        assert covered or name.startswith(NEUTRAL), f"{stage} imports {name}: list it, or move what it needs of it"


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_yaml_lists_no_code_that_a_stage_does_not_import(stage: str) -> None:
    for dep in STAGES[stage]["deps"]:
        if dep.startswith(("vqlcmd/", "stages/")) and "${" not in dep:
            assert any(name == dep or name.startswith(f"{dep}/") for name in imported_by(stage)), dep
            assert not f"{dep}/".startswith(NEUTRAL), f"{dep} is neutral"


def test_stages_that_build_a_method_depend_on_the_chosen_one_alone() -> None:
    builders = {stage for stage in STAGES if "vqlcmd/methods/__init__.py" in imported_by(stage)}
    assert builders == {stage for stage in STAGES if "vqlcmd/methods/${method}.py" in STAGES[stage]["deps"]}


def test_imports_point_down_a_floor() -> None:
    for file in sorted([*ROOT.glob("vqlcmd/**/*.py"), *ROOT.glob("stages/**/*.py")]):
        name = _name(file)
        if name in ("vqlcmd/__init__.py", "stages/__init__.py"):
            continue
        assert _room(name) in FLOOR_OF, f"{name}: give {_room(name)} a floor"
        for target in (_name(target) for target in direct(file)):
            if target in ("vqlcmd/__init__.py", "stages/__init__.py") or _room(target) == _room(name):
                continue
            assert FLOOR_OF[_room(target)] < FLOOR_OF[_room(name)], f"{name} imports {target}"


def test_no_module_imports_itself_through_others() -> None:
    graph = {file: direct(file) for file in ROOT.glob("vqlcmd/**/*.py") if file != ROOT / "vqlcmd/__init__.py"}
    done: set[Path] = set()

    def walk(file: Path, path: tuple[Path, ...]) -> None:
        assert file not in path, " -> ".join(_name(each) for each in (*path, file))
        if file not in done:
            for target in graph.get(file, set()):
                walk(target, (*path, file))
            done.add(file)

    for file in graph:
        walk(file, ())


def test_a_folder_holds_few_files_beside_each_other() -> None:
    folders = {file.parent for top in ("vqlcmd", "stages") for file in (ROOT / top).rglob("*.py")}
    for folder in folders:
        assert len(list(folder.glob("*.py"))) <= MOST_FILES, folder


@pytest.mark.parametrize("stage", SHARED)
def test_stages_that_know_no_domain_are_the_same_in_all_pipelines(stage: str) -> None:
    first, *others = [stages[stage] for stages in PIPELINES.values()]
    assert others == [first] * len(others)


def test_what_a_stage_needs_another_one_makes_or_git_has() -> None:
    for name, stages in PIPELINES.items():
        made = {
            next(iter(out)) if isinstance(out, dict) else out
            for about in stages.values()
            for out in [*about.get("outs", []), *about.get("metrics", []), *about.get("plots", [])]
        }
        for stage, about in stages.items():
            for dep in about["deps"]:
                in_git = dep.startswith(("stages/", "vqlcmd/", "data/manifests/"))
                assert in_git or dep in made, f"{stage} of {name}: {dep}"


@pytest.mark.parametrize("name", PIPELINES)
def test_what_a_stage_made_is_no_part_of_an_experiments_identity(name: str, tmp_path: Path) -> None:
    """A table of text would have run its rows again and again: one stage reads what another one leaves in metrics/."""
    values = read_yaml(ROOT / "presets" / ("text.yaml" if "text" in name else "digits.yaml"))
    (tmp_path / "dvc.yaml").write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    for path in ("metrics/bound.json", "data/tokens/header.json", f"data/manifests/{values['dataset']}.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("{}", encoding="utf-8")
    assert list(pipeline.digests(values, root=tmp_path)) == [f"data/manifests/{values['dataset']}.json"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_only_the_parameters_that_dvc_yaml_lists(stage: str) -> None:
    text = file_of(stage).read_text(encoding="utf-8")
    listed = STAGES[stage].get("params", [])
    read = set(re.findall(r"params\.((?!model_|yaml\b)\w+(?:\.(?!model_)\w+)*)", text))
    for name, keys in READERS.items():
        read = (read - {name}) | (keys if name in read else set())
    for key in read - CHECKED_ONLY.get(module(stage), set()):
        covered = any(f"{key}.".startswith(f"{known}.") or f"{known}.".startswith(f"{key}.") for known in listed)
        assert covered, f"{stage} reads params.{key}, which is not listed"


def test_training_depends_on_all_of_its_section_but_how_it_is_kept_and_watched() -> None:
    params = PIPELINES["dvc.yaml"]["train"]["params"]
    listed = {key.removeprefix("train.") for key in params if key.startswith("train.")}
    assert listed == set(Train.model_fields) - set(NOT_RESULTS)


def test_no_python_file_is_over_300_lines() -> None:
    for folder in ("vqlcmd", "stages", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            assert len(file.read_text(encoding="utf-8").splitlines()) <= 300, file
