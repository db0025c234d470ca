"""Injected fault: one of a kind, drawn by a seeded generator, with what ends it again."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import psutil

from benchmarks.chaos_campaign.campaign_project import CampaignProject
from fettle.adapters import process_identity
from fettle.rollout.router import model_servers, nginx_process

ALONE = JUDGES = ("controller", "watchdog")
RELEASES = ("champion", "champion's worker", "challenger", "challenger's worker")


class FaultKind(StrEnum):
    """What is done to the service."""

    KILL = "kill -9"
    STOP = "SIGSTOP"
    UNJUDGED = "nobody judges"
    ROUTER = "dead router"
    BYTES = "torn and alien bytes"
    DISK = "full disk"
    CLOCK = "a lease from another time"
    RELOAD = "reload under slow links"
    HOSTILE = "hostile clients without a key"


@dataclass(frozen=True, slots=True)
class InjectedFault:
    """A fault that was begun: `undo` ends it after `seconds`."""

    kind: FaultKind
    target: str
    seconds: float
    undo: Callable[[], None]


def nothing() -> None:
    """End a fault that has no duration."""


def kill(project: CampaignProject, rng: random.Random) -> InjectedFault:
    """Kill a process, or a few of them, as the OOM killer does."""
    target = rng.choice([*ALONE, *RELEASES, "controller, watchdog", "champion, challenger"])
    for one in target.split(", "):
        _signal(processes(project, one, rng), signal.SIGKILL)
    return InjectedFault(FaultKind.KILL, target, 0.0, nothing)


def dead_router(project: CampaignProject, rng: random.Random) -> InjectedFault:
    """Kill the router's master, its workers, or both."""
    target = rng.choice(["router", "router's worker", "router, router's worker"])
    found = [one for part in target.split(", ") for one in processes(project, part, rng)]
    _signal(found, signal.SIGKILL)
    return InjectedFault(FaultKind.ROUTER, target, 0.0, nothing)


def stop(project: CampaignProject, rng: random.Random) -> InjectedFault:
    """Stop a process for a while: a machine that swaps, a debugger, a snapshot."""
    target = rng.choice([*ALONE, *RELEASES, "router", "router's worker"])
    found = processes(project, target, rng)
    _signal(found, signal.SIGSTOP)
    seconds = rng.choice([1.0, 3.0, project.lease_s + 3.0])
    if "router" in target:
        seconds = 1.0  # nobody can answer meanwhile
    return InjectedFault(FaultKind.STOP, target, seconds, lambda: _signal(found, signal.SIGCONT))


def nobody_judges(project: CampaignProject, rng: random.Random) -> InjectedFault:
    """Kill or stop all who judge at once, for longer than the lease; nobody starts them again."""
    number = rng.choice([signal.SIGKILL, signal.SIGSTOP])
    found = [one for name in JUDGES for one in processes(project, name, rng)]
    _signal(found, number)
    target = f"{', '.join(JUDGES)}: {number.name}"
    seconds = project.lease_s + rng.choice([3.0, 6.0])
    return InjectedFault(
        FaultKind.UNJUDGED, target, seconds, lambda: _signal(found, signal.SIGCONT)
    )


def clock(project: CampaignProject, rng: random.Random) -> InjectedFault:
    """Date the lease before or after now, as a step of the wall clock does."""
    step_s = rng.choice([-86_400.0, -60.0, 60.0, 86_400.0])
    lease = project.place.lease
    with suppress(OSError):
        at = lease.stat().st_mtime + step_s
        os.utime(lease, (at, at))
    target = f"the lease, {step_s:+g} s"
    if rng.random() < 0.5:
        _signal(processes(project, "controller", rng), signal.SIGKILL)
        target += ", then kill -9 of the controller"
    return InjectedFault(FaultKind.CLOCK, target, 0.0, nothing)


def processes(project: CampaignProject, name: str, rng: random.Random) -> list[psutil.Process]:
    """Find the processes of a name: a head with its family, or one worker alone."""
    head_name, _, worker = name.partition("'s ")
    head = _head(project, head_name)
    if head is None:
        return []
    try:
        family = head.children(recursive=True)
    except psutil.Error:
        return []
    if worker:
        return [rng.choice(family)] if family else []
    alone = head_name in ("controller", "watchdog", "router")
    return [head] if alone else [head, *family]


def _head(project: CampaignProject, name: str) -> psutil.Process | None:
    place = project.place
    with suppress(psutil.Error, OSError):
        if name == "router":
            pid = nginx_process.running(place.router)
            return None if pid is None else psutil.Process(pid)
        if name in ("controller", "watchdog"):
            known = process_identity.read(place.folder / f"{name}.json")
            return None if known is None else psutil.Process(known.pid)
        serving = place.serving()
        release = getattr(serving, name, None)
        arms = model_servers.ModelServers(place.arms, {}, key=None)
        server = arms.find(release.release) if release is not None else None
        return None if server is None else psutil.Process(server.pid)
    return None


def _signal(found: list[psutil.Process], number: signal.Signals) -> None:
    for one in found:
        with suppress(psutil.Error):
            one.send_signal(number)


Injector = Callable[[CampaignProject, random.Random], InjectedFault]


def deck(
    count: int, rng: random.Random, among: Sequence[FaultKind] = tuple(FaultKind)
) -> Iterator[FaultKind]:
    """Deal kinds so that each comes as often as another, in an order that is drawn."""
    dealt = 0
    while True:
        kinds = list(among)
        rng.shuffle(kinds)
        for kind in kinds:
            if dealt == count:
                return
            dealt += 1
            yield kind
