"""The limits of the house style that a machine can hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = ("fettle", "stages", "flows", "bentos", "benchmarks", "tools")
SOURCES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
TRACKED_TEXT = sorted(
    p
    for p in ROOT.rglob("*")
    if p.is_file()
    and p.suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".html", ".css", ".json", ""}
    and not {".venv", ".git", ".fettle", ".dvc", "artifacts", "records", "releases"} & set(p.parts)
    and not {"__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis", "inputs"} & set(p.parts)
    and not {"report", ".pytest_cache"} & set(p.relative_to(ROOT).parts[:1])
)
FILE_LINES, FUNCTION_LINES, ARGUMENTS = 350, 60, 7
BANNED = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 60
    assert len(TRACKED_TEXT) > len(SOURCES)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES
    assert path.stem not in BANNED
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES, f"{node.name} has {length} lines"
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
            positional = [n for n in names if n not in ("self", "cls")]
            assert len(positional) <= ARGUMENTS, f"{node.name} takes {len(positional)} by position"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_file_says_why_it_exists(path: Path) -> None:
    text = path.read_text()
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "no docstring at the top"


def test_an_ignore_carries_its_reason() -> None:
    bare = re.compile(r"#\s*(noqa|type:\s*ignore)(:\s*[A-Z0-9, ]+|\[[\w, -]+\])?\s*$", re.M)
    assert bare.search("x = 1  # noqa: E402")
    assert not bare.search("x = 1  # noqa: E402  because")
    found = [str(p.relative_to(ROOT)) for p in SOURCES if bare.search(p.read_text())]
    assert not found


def test_no_text_names_a_machine() -> None:
    machine = re.compile(r"/(?:root|work|home/\w+|Users/\w+|opt/pypi|opt/wheels)/")
    assert machine.search("/home/someone/x")
    found = [
        str(p.relative_to(ROOT))
        for p in TRACKED_TEXT
        if p != Path(__file__) and machine.search(p.read_text(errors="ignore"))
    ]
    assert not found


def test_imports_point_down_only() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]
    kept, broken = re.findall(r"(\d+) kept, (\d+) broken", done.stdout)[-1]
    assert (int(kept), int(broken)) == (5, 0)
