"""Print what a finished run ends with: the table, the report's path, the command that serves."""

from __future__ import annotations

import os
from pathlib import Path

from fettle import manifest
from fettle.facts.last_run import LastRunDict
from fettle.project import Project


def show(project: Project, last: LastRunDict, *, fresh: bool) -> None:
    """Print the end of a run; `fresh` is False when nothing had to be done."""
    from rich.console import Console

    from fettle.report import report_facts
    from fettle.report import terminal_report as tables

    console = Console(highlight=False)
    if not fresh:
        console.print(f"Nothing changed since {last['finished']}; this is the last release.")
    for table in tables.tables(report_facts.collect(project.tree)):
        console.print(table)
    release = last["release"]
    console.print(f"release  {release['bento']}  (model version {release['model_version']})")
    console.print(f"report   {_near(project.tree / 'report' / 'index.html')}", soft_wrap=True)
    console.print("serve    fettle serve", soft_wrap=True)


def gate_reasons(project: Project) -> list[str]:
    """Return why the gate did not pass."""
    from fettle.facts.verdict_facts import VerdictFacts

    verdict = manifest.read(project.tree / "artifacts" / "verdict", VerdictFacts, verify=False)
    return list(verdict.facts.failed)


def _near(path: Path) -> str:
    """Write a path from the current folder, as a person would type it."""
    return os.path.relpath(path, Path.cwd())
