"""The wheel carries, as data in vqlcmd/starter, what `vqlcmd init` needs of the repository beside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
LISTED = ROOT / "vqlcmd" / "sharing" / "starter.txt"


class BuildWithStarter(build_py):
    """An editable install has the repository itself."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "vqlcmd" / "starter"
        shutil.rmtree(target, ignore_errors=True)
        for pattern in LISTED.read_text(encoding="utf-8").split():
            found = sorted(ROOT.glob(pattern))
            if not found:
                raise FileNotFoundError(f"{pattern} of {LISTED} is not in {ROOT}")
            for path in found:
                copy = target / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


setup(cmdclass={"build_py": BuildWithStarter})
