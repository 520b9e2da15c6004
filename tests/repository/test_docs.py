"""The documentation says what is there: its commands are valid, its links lead somewhere, its lists are the code's."""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from tests.conftest import STAGES
from tests.pipeline_imports import ROOT
from tests.repository.test_pipeline import FLOORS
from vqlcmd.cli.main import app
from vqlcmd.experiments.commands import commands
from vqlcmd.experiments.table import read_table, runs
from vqlcmd.params import load_params
from vqlcmd.runtime.yaml_file import read_yaml

PAGES = [*sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*.md"))]
COMMAND = re.compile(r"^.*?(dvc exp run[^`\n|]*)", re.MULTILINE)
OPTIONS = {"--temp", "--queue"}
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
MODULE = re.compile(r"python -m ((?:benchmarks|stages|tests|vqlcmd)(?:\.[a-z]\w*)*+)(?!\.[A-Z$])")
NOT_OF_THE_FIELD = re.compile(
    r"\bjudges?\b|facts? of the machine|memory that stays|mend it|get it again|network_calls|paper's figures"
)
OURS = re.compile(r"\bvqlcmd [^#\n&]+")
NAMED = re.compile(r"\[`([A-Za-z_][\w.]*)`\]\(\.\./((?:vqlcmd|stages|tests)/[\w/]+\.py)\)")


def commands_on(page: Path) -> list[str]:
    return [found.strip() for found in COMMAND.findall(page.read_text(encoding="utf-8"))]


def overrides(command: str) -> dict[str, str]:
    """{key: value} of the -S options of a command, in which nothing else stands but OPTIONS and, at its end, stages."""
    words = [word for word in shlex.split(command.removeprefix("dvc exp run")) if word not in OPTIONS]
    while words and words[-1] in STAGES and words[-2:-1] != ["-S"]:
        words.pop()
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


TABLES_PAGE = ROOT / "docs" / "tables.md"
TABLES = commands_on(TABLES_PAGE)
TABLE_NAMES = sorted(path.stem for path in (ROOT / "tables").glob("*.yaml"))


def section(name: str) -> str:
    """What the tables page says of one table."""
    parts = re.split(r"^##+ (?:`(\w+)`)?", TABLES_PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[name]


def cells(text: str) -> dict[str, list[str]]:
    """{first cell: the others} of the rows of a Markdown table."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row: [other.strip() for other in others] for row, *others in lines[1:]}


def test_the_commands_of_the_tables_page_leave_the_working_tree_alone() -> None:
    assert len(TABLES) > 60
    assert all("--temp" in command.split() for command in TABLES)


@pytest.mark.parametrize("preset", ["digits", "digits_table"])
@pytest.mark.parametrize("command", sorted(set(TABLES)))
def test_every_command_of_the_tables_is_valid_on_the_demo(command: str, preset: str, tmp_path: Path) -> None:
    values = read_yaml(ROOT / "presets" / f"{preset}.yaml")
    for key, value in overrides(command).items():
        *sections, last = key.split(".")
        here = values
        for name in sections:
            here = here[name]
        assert last in here, f"{key} in {command}: DVC refuses keys that params.yaml does not have"
        here[last] = yaml.safe_load(value)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    load_params(path)


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_the_tables_page_has_the_commands_of_every_table_as_they_are_printed(name: str) -> None:
    table, base = read_table(ROOT / "tables" / f"{name}.yaml"), read_yaml(ROOT / "presets" / "digits_table.yaml")
    printed = commands(name, table, base)
    hint = f"put there what `vqlcmd table commands {name} --preset digits_table` prints"
    assert f"\n{printed}\n" in section(name), hint


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_the_command_of_a_row_sets_what_the_row_sets(name: str) -> None:
    """Of a sweep it is that of the first value, and a row of other people's numbers has none."""
    table, base = read_table(ROOT / "tables" / f"{name}.yaml"), read_yaml(ROOT / "presets" / "digits_table.yaml")
    listed = cells(section(name))
    assert list(listed) == list(table.rows)
    first = {run.row: run for run in reversed(runs(table, base, [0]))}
    for row, (*_, command) in listed.items():
        if table.rows[row].cited:
            assert command == "cited"
        elif table.rows[row].teacher:
            # Its teacher's row has to run before it.
            assert shlex.split(command.strip("`")) == ["vqlcmd", "table", "run", name, "--row", row]
        else:
            found = {key: yaml.safe_load(value) for key, value in overrides(command.strip("`")).items()}
            assert found | {"seed": 0} == first[row].overrides, f"{row}: {command}"


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_numbers_of_the_demo_on_the_first_page_are_those_of_its_metrics() -> None:
    found, bound = (json.loads((ROOT / "metrics" / f"{name}.json").read_text()) for name in ("evaluate", "bound"))
    text = " ".join(README.split())
    assert f"`fid_proxy` {found['fid_proxy']:.2f} ({found['reconstruction']['fid_proxy']:.2f} for" in text
    assert f"precision {found['precision_proxy']:.3f}, recall {found['recall_proxy']:.3f}" in text
    assert f"class accuracy {found['class_accuracy_proxy']:.3f}, {found['nfe']} network calls" in text
    assert f"{bound['nats_per_token']:.2f} ± {bound['standard_error']:.2f} nats per token" in text


def test_the_table_of_all_methods_on_the_first_page_is_that_of_the_results() -> None:
    here = cells(README.partition("## All methods\n")[2].partition("\n## ")[0])
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    there = cells(results.partition("## All methods\n")[2].partition("\nScale: ")[0])
    assert list(here) == [row.strip() for row in there]
    for row, (fid, precision, recall, accuracy, _, nats, _, nfe, _) in there.items():
        assert here[row.strip()] == [fid, precision, recall, accuracy, nats, nfe]


def test_the_first_page_says_that_dvcs_curves_need_the_internet_and_names_a_way_without() -> None:
    """Without a network they are missing from the page, and no message says so. test_dvc.py looks into that page."""
    text = " ".join(README.split())
    (sentence,) = re.findall(r"The page of `dvc plots` [^.]*\.", text)
    assert "(Vega) from the Internet; without a network there are only its pictures" in sentence
    assert re.search(r"vqlcmd compare .* --html x\.html +# .* in one offline page", README)


def test_no_message_sends_anybody_to_a_remote_that_is_not_there() -> None:
    """The repository has none, and `dvc pull` ends in an error of its own."""
    assert "remote" not in (ROOT / ".dvc" / "config").read_text(encoding="utf-8")
    files = [*(ROOT / "vqlcmd").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]
    assert [file.name for file in files if "dvc pull" in file.read_text(encoding="utf-8")] == []


@pytest.mark.slow
def test_the_table_of_experiments_shows_what_was_varied_while_rows_are_queued(tmp_path: Path) -> None:
    """All columns at once are 3,071 characters wide then, and DVC cuts at the terminal's width."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "copy")], check=True)
    (show,) = re.findall(r"^(dvc exp show .*?)  +#", README, re.MULTILINE)
    for command in ("dvc exp run --queue -S 'drop=0.1,0.3'", show):
        done = subprocess.run(
            [sys.executable, "-m", *shlex.split(command)], cwd=tmp_path / "copy", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert {row.split(" | ")[-1].strip(" |") for row in done.stdout.splitlines()} >= {"drop", "0.1", "0.2", "0.3"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_ours_are_ones_that_there_are(page: Path) -> None:
    """With their arguments and options: parsed as the command line does it, and not run."""
    text = "\n".join(BLOCK.findall(page.read_text(encoding="utf-8")))
    for command in OURS.findall(text):
        _, *words = shlex.split(command, comments=True)
        # Groups parse their own options alone, so go down to the command itself.
        here: Any = typer.main.get_command(app)
        while hasattr(here, "commands"):
            name, *words = words
            assert name in here.commands, command
            here = here.commands[name]
        here.make_context(here.name, list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_that_a_page_runs_are_there(page: Path) -> None:
    for module in MODULE.findall(page.read_text(encoding="utf-8")):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"{page.name}: python -m {module}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_uses_the_terms_of_the_field(page: Path) -> None:
    found = NOT_OF_THE_FIELD.findall(" ".join(page.read_text(encoding="utf-8").split()))
    assert not found, f"{page.name}: {', '.join(found)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = {link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link}
    missing = sorted(target for target in targets if target and not (page.parent / target).exists())
    assert not missing, f"{page.name} links to {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_code_name_what_the_file_defines(page: Path) -> None:
    for name, file in NAMED.findall(page.read_text(encoding="utf-8")):
        # With as many of its packages in front as a page likes.
        parts = [part for part in Path(file).with_suffix("").parts[1:] if part != "__init__"]
        modules = [".".join(parts[first:]) for first in range(len(parts))]
        module = next((module for module in modules if name.startswith(f"{module}.")), None)
        assert module, f"{page.name}: {name} is not of {file}"
        assert name.removeprefix(f"{module}.") in defined(ROOT / file), f"{page.name}: {file} has no {name}"


def test_every_equation_of_the_method_page_is_one_link_away_from_code_and_test() -> None:
    """Between an equation with a number and the next one stand a function and a test file."""
    text = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    numbers = re.findall(r"\\tag\{(\d)\}", text)
    assert numbers == ["1", "2", "3", "4"]
    for part in re.split(r"\\tag\{\d\}", text)[1:]:
        assert NAMED.search(part), part[:200]
        assert re.search(r"\]\(\.\./tests/[\w/]+\.py\)", part), part[:200]


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
    block = re.split(r"a\s+test\s+compares\):\n\n", text)[1].partition("\n\n")[0]
    assert [line.split() for line in block.splitlines()] == [layer.split() for layer in FLOORS]
