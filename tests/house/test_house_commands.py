"""What is written about the command line names commands and options that it has."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from fettle.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "params.yaml", "Makefile")]
TEXTS += [*(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.yaml")]
TEXTS += [*(ROOT / "docs" / "decisions").glob("*.md")]
TEXTS += [p for room in ("fettle", "stages", "flows") for p in (ROOT / room).rglob("*.py")]
# In backticks in a text, or at the start of a line of a code block or of a docstring's example.
NAMED = re.compile(
    r"(?:`|^(?:\$ )?(?:Example: )?|^ +(?:Example: )?|&& )fettle ([a-z]+)(?: ([a-z]+))?", re.M
)
# A sentence that goes on with the product's name at the start of a line is no command.
PROSE = {"import", "that", "writes", "works", "takes", "needs", "does", "decides", "but", "and"}


def commands() -> dict[str, set[str]]:
    """Return {command: its sub-commands}."""
    group = typer.main.get_command(app)
    return {
        name: set(getattr(command, "commands", {}))
        for name, command in group.commands.items()  # type: ignore[attr-defined]  # a group
    }


def test_every_command_that_a_text_names_exists() -> None:
    known = commands()
    wrong, found = [], 0
    for path in TEXTS:
        for command, below in NAMED.findall(path.read_text()):
            if command in PROSE:
                continue
            found += 1
            if command not in known or (known[command] and below and below not in known[command]):
                wrong.append(f"{path.relative_to(ROOT)}: fettle {command} {below}".strip())
    assert found > 100
    assert not wrong


def test_params_yaml_points_at_the_catalog() -> None:
    assert "`fettle catalog sources`" in (ROOT / "params.yaml").read_text()
    assert {"catalog", "targets", "run", "canary"} <= set(commands())
