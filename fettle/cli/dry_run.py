"""Say what `fettle run` would do: which stages, why, how long and how much disk they took last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

from fettle.adapters import dvc_graph
from fettle.project import Project


class PlannedStage(TypedDict):
    """What would become of a stage; figures that are not known are None."""

    name: str
    will: str
    because: str
    seconds: float | None
    disk_bytes: int | None


def show(project: Project, *, as_json: bool) -> None:
    """Print the plan of a run; nothing is run."""
    rows = plan(project.tree)
    if as_json:
        print(json.dumps({"stages": rows}))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("stage", "will", "took", "disk"):
        table.add_column(
            name, justify="right" if name in ("took", "disk") else "left", no_wrap=True
        )
    table.add_column("because", no_wrap=True, overflow="ellipsis")
    for row in rows:
        took, disk = row["seconds"], row["disk_bytes"]
        table.add_row(
            row["name"],
            row["will"],
            f"{took:.1f} s" if took is not None else "-",
            f"{disk / 1e6:.1f} MB" if disk is not None else "-",
            row["because"],
        )
    console = Console()
    console.print(table)
    runs = [row for row in rows if row["will"] != "keep"]
    known = [row["seconds"] for row in runs if row["seconds"] is not None]
    missing = len(runs) - len(known)
    text = f"{len(runs)} of {len(rows)} stages to do"
    if known:
        text += f"; by their last time about {sum(known):.0f} s"
    if missing:
        text += f"; {missing} never ran here, so how long they take is not known"
    console.print(text, highlight=False)


def plan(tree: Path) -> list[PlannedStage]:
    """Return a row a stage: {name, will, because, seconds, disk_bytes}; unknown figures are None.

    `will` is run, restore (from the run-cache), maybe (something above it runs) or keep.
    """
    stages, stale = dvc_graph.stale(tree, look_in_cache=True)
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
        stage, _, target = name.partition("@")
        folder = tree / "artifacts" / stage / target
        record = tree / "records" / f"{name}.json"
        rows.append(
            {
                "name": name,
                "will": will,
                "because": because,
                "seconds": json.loads(record.read_text())["seconds"] if record.is_file() else None,
                "disk_bytes": sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
                if folder.is_dir()
                else None,
            }
        )
    return rows
