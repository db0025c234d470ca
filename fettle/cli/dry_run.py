"""Say what `fettle run` would do: which stages, why, how long, with how much memory and disk."""

from __future__ import annotations

import json
from collections import Counter
from typing import TypedDict

from fettle.adapters import dvc_graph
from fettle.cli.run_forecast import Basis, RunForecast, StageForecast
from fettle.params import Params
from fettle.project import Project
from fettle.recipes.remaining_time import spoken

BASES: dict[Basis, str] = {
    "measured": "by their last time here",
    "scaled": "by their last time here, scaled to other params or images",
    "estimated": "by the committed cost table and a probe of this machine",
}
SHORT: dict[Basis, str] = {"measured": "last time", "scaled": "scaled", "estimated": "table"}
RESTORED_S = 1.0  # of a stage that the run-cache has


class PlannedStage(TypedDict):
    """What would become of a stage, and what it would take; None for one that is kept."""

    name: str
    will: str
    because: str
    seconds: float | None
    memory_bytes: int | None
    disk_bytes: int | None
    basis: Basis | None


def show(project: Project, settings: Params, *, as_json: bool) -> None:
    """Print the plan of a run; nothing is run."""
    forecast = RunForecast(project, settings)
    rows = plan(project, forecast)
    if as_json:
        print(json.dumps({"stages": rows, "seconds": total_s(rows, forecast)}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("stage", "will", "takes", "memory", "disk", "by"):
        right = name in ("takes", "memory", "disk")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    table.add_column("because", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(row["name"], row["will"], *_figures(row), row["because"])
    console = Console()
    console.print(table)
    console.print(summary(rows, forecast), highlight=False, soft_wrap=True)


def _figures(row: PlannedStage) -> tuple[str, str, str, str]:
    seconds, memory, disk, basis = (
        row["seconds"],
        row["memory_bytes"],
        row["disk_bytes"],
        row["basis"],
    )
    return (
        "-" if seconds is None else f"{seconds:.0f} s",
        "-" if memory is None else f"{memory / 1e6:.0f} MB",
        "-" if disk is None else f"{disk / 1e6:.1f} MB",
        "-" if basis is None else SHORT[basis],
    )


def total_s(rows: list[PlannedStage], forecast: RunForecast) -> float:
    """Seconds of the whole run; 0 when there is nothing to do."""
    known = [row["seconds"] for row in rows if row["seconds"] is not None]
    return sum(known) + forecast.overhead_s if known else 0.0


def summary(rows: list[PlannedStage], forecast: RunForecast) -> str:
    """Say in a line what the run takes, and what that is known from."""
    runs = [row for row in rows if row["will"] != "keep"]
    text = f"{len(runs)} of {len(rows)} stages to do"
    if not runs:
        return text
    memory = max(row["memory_bytes"] or 0 for row in runs)
    disk = sum(row["disk_bytes"] or 0 for row in runs)
    counts = Counter(row["basis"] for row in runs)
    known = [f"{counts[basis]} {said}" for basis, said in BASES.items() if counts[basis]]
    sources = [", ".join(known)] if known else []
    if counts[None]:
        sources.append(f"{counts[None]} from the cache")
    takes = (
        f"{text}: about {spoken(total_s(rows, forecast))}, {memory / 1e9:.1f} GB of memory at "
        f"most, {disk / 1e6:.0f} MB on disk"
    )
    return "; ".join([takes, *sources])


def plan(project: Project, forecast: RunForecast) -> list[PlannedStage]:
    """Return a row a stage; `will` is run, restore (from the run-cache), maybe (something above it
    runs) or keep.
    """
    stages, stale = dvc_graph.stale(project.tree, look_in_cache=True)
    below = dvc_graph.downstream(stages, set(stale))
    rows: list[PlannedStage] = []
    for name in stages:
        why = stale.get(name)
        if why is not None:
            will, because = ("restore" if why.restorable else "run"), why.reasons[0]
        elif name in below:
            will, because = "maybe", "a stage above it runs"
        else:
            will, because = "keep", "unchanged"
        found = forecast.stage(name) if will in ("run", "maybe") else None
        rows.append(_row(name, will, because, found))
    return rows


def _row(name: str, will: str, because: str, found: StageForecast | None) -> PlannedStage:
    restored = RESTORED_S if will == "restore" else None
    return {
        "name": name,
        "will": will,
        "because": because,
        "seconds": found.seconds if found else restored,
        "memory_bytes": found.memory_bytes if found else None,
        "disk_bytes": found.disk_bytes if found else None,
        "basis": found.basis if found else None,
    }
