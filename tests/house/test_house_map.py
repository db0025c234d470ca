"""docs/map.md names what exists, and every text names paths that exist."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import map as house_map

ROOT = Path(__file__).resolve().parents[2]
MAP = ROOT / "docs" / "map.md"
ROOMS = ("fettle", "stages", "flows", "bentos", "benchmarks", "tools", "tests", "docs", "examples")
# ROOM/…: at least one more part; `…:name` a function, class or constant of it
NAMED = re.compile(rf"(?<![\w./-])((?:{'|'.join(ROOMS)})/[\w./-]*\w)(?::([A-Za-z_][\w.]*))?")
# Files to be made, by whoever adds one or by a run of it
MADE = re.compile(r"NAME|STAGE|TARGET|SERVICE|\bresults/")
FOREIGN = {"docs/features/analysis.md"}  # of Argo Rollouts' repository
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = [p for room in ROOMS[:7] for p in sorted((ROOT / room).rglob("*.py"))]


@functools.cache
def symbols(path: Path) -> frozenset[str]:
    """Return the names that a module defines: functions, classes, Class.method, constants."""
    return frozenset(_names(ast.parse(path.read_text()).body, ""))


def _names(body: list[ast.stmt], before: str) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield before + node.name
        elif isinstance(node, ast.ClassDef):
            yield before + node.name
            yield from _names(node.body, f"{before}{node.name}.")
        elif isinstance(node, ast.Assign):
            yield from (before + t.id for t in node.targets if isinstance(t, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield before + node.target.id


def missing(text: str) -> list[str]:
    """List the paths and functions that a text names and that do not exist."""
    found = []
    for path, name in NAMED.findall(text):
        if MADE.search(path) or path in FOREIGN:
            continue
        there = ROOT / path
        whole = [there, there.with_suffix(".py"), *there.parent.glob(f"{there.name}-*.md")]
        if not any(one.exists() for one in whole):  # a module or an ADR without its ending
            found.append(path)
        elif name and path.endswith(".py") and name not in symbols(there):
            found.append(f"{path}:{name}")
    return found


def test_the_layers_are_those_of_the_import_contract() -> None:
    page, pyproject = MAP.read_text(), (ROOT / "pyproject.toml").read_text()
    assert house_map.drawn(page, pyproject) == page, "run `make map`"
    assert len(house_map.layers(pyproject)) > 10


def test_a_changed_contract_changes_the_drawing() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    changed = pyproject.replace('"fettle.workspace",\n', '"fettle.new_room",\n', 1)
    assert house_map.drawn(MAP.read_text(), changed) != MAP.read_text()


def test_every_path_and_function_of_the_map_exists() -> None:
    named = [name for _, name in NAMED.findall(MAP.read_text()) if name]
    assert len(named) > 80
    assert missing(MAP.read_text()) == []


def test_every_room_is_in_the_map() -> None:
    rooms = {p.parent.name for p in (ROOT / "fettle").glob("*/__init__.py")}
    drawn = set(re.findall(r"^  (\w+)/ ", MAP.read_text(), re.M))
    assert drawn == rooms


def test_a_path_or_function_that_does_not_exist_is_found() -> None:
    text = "`fettle/errors.py:FettleError`, `fettle/errors.py:Gone`, fettle/gone.py, docs/map.md"
    assert missing(text) == ["fettle/errors.py:Gone", "fettle/gone.py"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_text_names_only_paths_that_exist(path: Path) -> None:
    text = path.read_text()
    if not re.search(r"^Replaced by \d{4}", text, re.M):  # it tells of what is no more
        assert missing(text) == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_link_leads_to_a_file(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)\)", path.read_text())
    assert [x for x in links if "://" not in x and not (path.parent / x).exists()] == []


def test_comments_and_docstrings_name_only_paths_that_exist() -> None:
    found = {}
    for path in SOURCES:
        if path != Path(__file__).resolve():
            lines = [x for x in missing(_prose(path)) if not x.startswith("tests/")]
            if lines:
                found[str(path.relative_to(ROOT))] = lines
    assert found == {}


def _prose(path: Path) -> str:
    """Return the comments and docstrings of a file."""
    text = path.read_text()
    parts = re.findall(r"(?:^|\s)# (.*)", text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            parts.append(ast.get_docstring(node) or "")
    return "\n".join(parts)


def test_a_file_that_prose_names_without_its_folder_exists() -> None:
    """`graph_cleanup.py` in a docstring: of our code, wherever it lies."""
    stems = {path.name for path in SOURCES}
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in SOURCES
        if "tests" not in path.relative_to(ROOT).parts
        for name in re.findall(r"(?<![\w/.])\w+\.py\b", _prose(path))
        if name not in stems
    }
    assert found == set()


def test_there_is_something_to_look_at() -> None:
    assert len(TEXTS) > 40
    assert len(SOURCES) > 300
