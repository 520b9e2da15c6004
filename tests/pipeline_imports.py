"""Which modules of this repository a module imports, transitively, read from the source text."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent


def direct(path: Path) -> set[Path]:
    """Files of this repository that a file imports; inside functions too, but for those that a package only offers."""
    found: set[Path] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if path.name == "__init__.py" else ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {file for name in names if (file := _file(name)) is not None}
    return found - {path}


def transitive(path: Path) -> set[Path]:
    """All files of this repository that importing `path` may load, itself included."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(direct(current))
    return seen


def _file(name: str) -> Path | None:
    if name.split(".")[0] not in ("vqlcmd", "stages"):
        return None
    base = ROOT.joinpath(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None
