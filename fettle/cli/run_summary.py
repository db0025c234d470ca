"""Print what a finished run ends with: the table, the report's path, the command that serves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from fettle import manifest
from fettle.facts.last_run import LastRun
from fettle.project import Project

if TYPE_CHECKING:
    from fettle.facts.verdict_facts import VerdictFacts


def show(project: Project, last: LastRun, *, fresh: bool) -> None:
    """Print the end of a run; `fresh` is False when nothing had to be done."""
    from rich.console import Console

    from fettle.report import report_facts
    from fettle.report import terminal_report as tables

    console = Console(highlight=False)
    if not fresh:
        console.print(f"Nothing changed since {last.finished}; this is the last release.")
    for table in tables.tables(report_facts.collect(project.tree)):
        console.print(table)
    release = last.release
    console.print(f"release  {release.bento}  (model version {release.model_version})")
    console.print(f"report   {_near(project.tree / 'report' / 'index.html')}", soft_wrap=True)
    console.print("serve    fettle serve", soft_wrap=True)


def smoke(project: Project) -> str | None:
    """Say that the run was a smoke run, which is no failure and no challenger; None for others."""
    bounds = _verdict(project).bounds
    if bounds is None or bounds.smoke_images is None:
        return None
    taken, whole = bounds.smoke_images
    return (
        f"smoke run on {taken:,} of {whole:,} images: every stage works; the release is marked so "
        "and is no challenger. The whole run: fettle run"
    )


def gate_reasons(project: Project) -> list[str]:
    """Return why the gate did not pass."""
    return list(_verdict(project).failed)


def _verdict(project: Project) -> VerdictFacts:
    from fettle.facts.verdict_facts import VerdictFacts

    folder = project.tree / "artifacts" / "verdict"
    return manifest.read(folder, VerdictFacts, verify=False).facts


def _near(path: Path) -> str:
    """Write a path from the current folder, as a person would type it."""
    return os.path.relpath(path, Path.cwd())
