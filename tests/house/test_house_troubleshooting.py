"""The errors that docs/troubleshooting.md explains, and the commands of the tutorial, exist."""

from __future__ import annotations

import re
from pathlib import Path

from fettle.cli.commands import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def source() -> str:
    """Return our code with the breaks inside its strings taken out."""
    text = "".join(
        path.read_text()
        for room in ("fettle", "stages", "flows")
        for path in (ROOT / room).rglob("*.py")
    )
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_every_error_of_the_page_is_one_that_the_code_says() -> None:
    rows = re.findall(r"^\| (`.*?) \| ", (DOCS / "troubleshooting.md").read_text(), re.M)
    quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    said = source()
    stale = "inputs/source.json is stale"  # the file's name is filled in
    assert len(rows) > 12
    assert [text for text in quoted if text not in said and text != stale] == []


def test_every_command_of_the_tutorial_is_one() -> None:
    page = (DOCS / "tutorial.md").read_text()
    used = set(re.findall(r"^fettle (\w+)", page, re.M)) | set(re.findall(r"`fettle (\w+)", page))
    groups = {group.name for group in app.registered_groups}
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert len(used) >= 6
    assert used <= known | groups
    options = set(re.findall(r" (--[a-z-]+)", page))
    code = "".join(path.read_text() for path in (ROOT / "fettle" / "cli").glob("*.py"))
    assert {name for name in options if name.removeprefix("--").replace("-", "_") not in code} == (
        set()
    )


def test_the_canary_s_commands_of_the_tutorial_are_there() -> None:
    named = set(re.findall(r"fettle canary (\w+)", (DOCS / "tutorial.md").read_text()))
    code = "".join(path.read_text() for path in (ROOT / "fettle" / "cli").glob("canary*.py"))
    assert named >= {"plan", "start", "status", "rehearse"}
    assert {name for name in named if f"def {name}(" not in code} == set()
