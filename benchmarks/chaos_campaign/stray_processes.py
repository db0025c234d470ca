"""Stray processes: what a fault left running that nobody looks after, or that runs twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.chaos_campaign.campaign_project import CampaignProject
from fettle.rollout.router import nginx_process

MODULES = ("watchdog", "controller_process")
SERVERS_MOST = 2


def found(project: CampaignProject) -> str:
    """Say what runs twice, or not at all; "" where each runs once."""
    counts = Counter(_names(project))
    twice = sorted(name for name, count in counts.items() if count > 1)
    missing = [name for name in (*MODULES, "router") if not counts[name]]
    servers = [name for name in counts if name.startswith("server of ")]
    if twice or missing:
        return "; ".join([*(f"{name} runs twice" for name in twice), *(f"no {m}" for m in missing)])
    if len(servers) > SERVERS_MOST:
        return f"{len(servers)} releases are served: {', '.join(servers)}"
    orphans = nginx_process.orphans(project.place.router)
    return f"{len(orphans)} router workers without a master" if orphans else ""


def _names(project: CampaignProject) -> Iterator[str]:
    """Name every head of a family of processes that belongs to the project."""
    place, root = project.place, str(project.root)
    arms = place.arms.resolve()
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            words = process.cmdline() or [""]
            above = process.parent()
            where = Path(process.cwd())
            if words[-1:] == [root]:
                yield from (one for one in MODULES if words[-2].endswith(f".{one}"))
            elif "nginx: master" in " ".join(words) and str(project.place.router) in " ".join(
                words
            ):
                yield "router"
            elif where.parent == arms and (above is None or Path(above.cwd()).parent != arms):
                yield f"server of {where.name}"
