"""`vqlcmd init`: a folder with a new pipeline, code included, from the installed package or from a checkout."""

import shutil
from importlib import resources
from pathlib import Path

import vqlcmd
from vqlcmd.runtime.errors import ConfigError, DataError
from vqlcmd.runtime.yaml_file import read_yaml

PACKAGE = Path(vqlcmd.__file__).parent
PACKED = PACKAGE / "starter"
"""Where the wheel has the files that a checkout has beside the package."""


def start(folder: Path, preset: str) -> None:
    """Writes `folder`: dvc.yaml, stages/, presets/, tables/, the package vqlcmd/ and, as params.yaml, a preset.

    The code is copied, since results depend on it: dvc.yaml lists its files, `dvc exp run` takes it along, and a later
    version of the package changes no number here. Raises ConfigError if the folder has anything but .git in it or if
    there is no such preset, and DataError if the installed package lacks the pipeline.
    """
    source = PACKED if PACKED.is_dir() else PACKAGE.parent
    presets = sorted(path.stem for path in (source / "presets").glob("*.yaml"))
    if not (source / "dvc.yaml").is_file() or not presets:
        raise DataError(f"{source} has no pipeline beside the package: install vqlcmd anew, or clone its repository")
    if preset not in presets:
        raise ConfigError(f"--preset {preset} is not there: choose one of {', '.join(presets)}")
    if folder.is_dir() and any(path.name != ".git" for path in folder.iterdir()):
        raise ConfigError(f"{folder} has something in it already: name a folder that is empty or not there")
    for pattern in resources.files("vqlcmd.sharing").joinpath("starter.txt").read_text("utf-8").split():
        for path in sorted(source.glob(pattern)):
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    ignored = shutil.ignore_patterns("__pycache__", PACKED.name)
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=ignored, copy_function=shutil.copyfile)
    params = source / "presets" / f"{preset}.yaml"
    shutil.copyfile(params, folder / "params.yaml")
    # dvc.yaml is for images; another domain has a file with its own stages.
    pipeline = source / "pipelines" / f"{read_yaml(params)['domain']}.yaml"
    if pipeline.is_file():
        shutil.copyfile(pipeline, folder / "dvc.yaml")
