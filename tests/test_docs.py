"""The documentation says what is there: its commands are valid, its links lead somewhere, its lists are the code's."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from tests.pipeline_imports import ROOT
from tests.test_pipeline import LAYERS
from vqlcmd.config import load_params
from vqlcmd.yamlfile import read_yaml

PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
COMMAND = re.compile(r"^.*?(dvc exp run[^`\n|]*)", re.MULTILINE)
OPTIONS = {"--temp", "--queue"}
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"\[`([A-Za-z_][\w.]*)`\]\(\.\./((?:vqlcmd|stages|tests)/[\w/]+\.py)\)")


def commands(page: Path) -> list[str]:
    return [found.strip() for found in COMMAND.findall(page.read_text(encoding="utf-8"))]


def overrides(command: str) -> dict[str, str]:
    """{key: value} of the -S options of a command, in which nothing else stands but OPTIONS."""
    words = [word for word in command.removeprefix("dvc exp run").split() if word not in OPTIONS]
    assert words[::2] == ["-S"] * (len(words) // 2), command
    found: dict[str, str] = {}
    for word in words[1::2]:
        key, _, value = word.partition("=")
        assert key not in found, f"{key} stands twice in {command}"
        found[key] = value
    return found


def defined(path: Path) -> set[str]:
    """Names that a module defines: functions, classes, constants, and `Class.method`."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            names |= {target.id} if isinstance(target, ast.Name) else set()
    return names


TABLES = commands(ROOT / "docs" / "tables.md")


def test_the_tables_page_holds_commands_that_set_something() -> None:
    assert len(TABLES) > 30
    assert all(overrides(command) for command in TABLES)


@pytest.mark.parametrize("command", sorted(set(TABLES)))
def test_every_command_of_the_tables_is_valid_on_the_demo(command: str, tmp_path: Path) -> None:
    values = read_yaml(ROOT / "presets" / "digits.yaml")
    for key, value in overrides(command).items():
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section[name]
        assert last in section, f"{key} in {command}: DVC refuses keys that params.yaml does not have"
        section[last] = yaml.safe_load(value)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    load_params(path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = {link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link}
    missing = sorted(target for target in targets if target and not (page.parent / target).exists())
    assert not missing, f"{page.name} links to {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_code_name_what_the_file_defines(page: Path) -> None:
    for name, file in NAMED.findall(page.read_text(encoding="utf-8")):
        module = ".".join(Path(file).with_suffix("").parts[1:])
        assert name.startswith(f"{module}."), f"{page.name}: {name} is not of {file}"
        assert name.removeprefix(f"{module}.") in defined(ROOT / file), f"{page.name}: {file} has no {name}"


def test_every_equation_of_the_method_page_is_one_link_away_from_code_and_test() -> None:
    """Between an equation with a number and the next one stand a function and a test file."""
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    numbers = re.findall(r"\\tag\{(\d)\}", text)
    assert numbers == ["1", "2", "3", "4"]
    for part in re.split(r"\\tag\{\d\}", text)[1:]:
        assert NAMED.search(part), part[:200]
        assert re.search(r"\]\(\.\./tests/test_\w+\.py\)", part), part[:200]


def test_sections_that_docstrings_cite_are_on_the_method_page() -> None:
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    there = {int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)}
    equations = {int(number) for number in re.findall(r"\\tag\{(\d)\}", text)}
    for folder in ("vqlcmd", "stages", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            code = file.read_text(encoding="utf-8")
            assert {int(number) for number in re.findall(r"[Ss]ection (\d+)", code)} <= there, file
            assert {int(number) for number in re.findall(r"[Ee]quation (\d)", code)} <= equations, file


def test_the_import_order_on_the_architecture_page_is_the_tested_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = text.partition("a test compares):\n\n")[2].partition("\n\n")[0]
    assert [line.split() for line in block.splitlines()] == [layer.split() for layer in LAYERS]
