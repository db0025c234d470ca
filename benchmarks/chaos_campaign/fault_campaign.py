"""Fault campaign: prepare a rollout, inject a fault, end it, and see what must hold after it.

After each fault: a user is answered (or told by a 503 when to come again), `fettle canary status`
says one state and it is true, the next command works. What every request of a challenger was judged
by is counted at the end, from the router's log and the journals.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum

from benchmarks.chaos_campaign import (
    damaged_files,
    hostile_clients,
    injected_fault,
    judged_traffic,
    stray_processes,
)
from benchmarks.chaos_campaign.availability_probe import AvailabilityProbe
from benchmarks.chaos_campaign.campaign_project import CampaignProject
from benchmarks.chaos_campaign.injected_fault import FaultKind, Injector
from benchmarks.chaos_campaign.judged_traffic import JudgedTraffic
from fettle.cli import canary_orders
from fettle.errors import FettleError
from fettle.rollout.promotion.rollout_state import is_over
from fettle.rollout.supervisor import load_generator

INJECTORS: dict[FaultKind, Injector] = {
    FaultKind.KILL: injected_fault.kill,
    FaultKind.STOP: injected_fault.stop,
    FaultKind.UNJUDGED: injected_fault.nobody_judges,
    FaultKind.ROUTER: injected_fault.dead_router,
    FaultKind.BYTES: damaged_files.damage,
    FaultKind.DISK: damaged_files.full_disk,
    FaultKind.CLOCK: injected_fault.clock,
    FaultKind.RELOAD: hostile_clients.reload,
    FaultKind.HOSTILE: hostile_clients.hostile,
}
PER_S = 50.0  # of the load; two cores carry it beside two releases and all the processes
ANSWERED_IN_S = 30.0  # a release of one worker a core is up again in 3 to 8 s
ANSWERS_IN_A_ROW = 3
TRUE_IN_S = 30.0
SHARE_S = 1.5  # over so long the log must show what the status says
PASSING = ("controller", "rollout ")  # it failed within the last minute; a journal was damaged
SEEN_PERCENT = 25.0  # at less the load may well draw nobody in SHARE_S
END_S = 90.0


class Stage(StrEnum):
    """Where a rollout stands when the fault comes."""

    NONE = "no rollout"
    SHADOW = "shadow"
    STEP = "step"
    WHOLE = "all traffic"


@dataclass(frozen=True, slots=True)
class FaultResult:
    """What came of a fault: seconds until users were answered again, and what did not hold."""

    number: int
    stage: str
    kind: str
    target: str
    answered_s: float
    broken: tuple[str, ...] = ()


@dataclass
class CampaignResult:
    """All that was counted."""

    faults: list[FaultResult] = field(default_factory=list)
    sent: int = 0
    failed: int = 0
    told_to_wait: int = 0
    judged: JudgedTraffic = field(default_factory=lambda: JudgedTraffic(0, 0, 0.0))


class FaultCampaign:
    """`faults` faults of some kinds drawn with `seed`; `say` takes a line a fault."""

    def __init__(
        self,
        project: CampaignProject,
        seed: int,
        say: Callable[[str], None],
        kinds: Sequence[FaultKind] = tuple(FaultKind),
    ) -> None:
        self._kinds = kinds
        self._project, self._say = project, say
        self._rng = random.Random(seed)
        self._result = CampaignResult()
        self._alone = False  # whether nothing is left that could start anything again

    def run(self, faults: int) -> CampaignResult:
        """Run the campaign under load; raises RuntimeError where nothing serves to begin with."""
        project, load = self._project, None
        try:
            project.open()
            load = project.ask(PER_S)
            body = load_generator.read(project.requests)[0].body
            with closing(AvailabilityProbe(project.serving.port, body, project.key)) as probe:
                for number, kind in enumerate(self._deck(faults), start=1):
                    self._result.faults.append(self._one(number, kind, probe))
            load.send_signal(signal.SIGTERM)
            counts = json.loads(load.communicate(timeout=END_S)[0])
            self._result.sent = counts["sent"]
            self._result.told_to_wait = int(counts["statuses"].get("503", 0))
            self._result.failed = counts["failed"] - self._result.told_to_wait
            self._result.judged = judged_traffic.count(project.place, project.lease_s)
        finally:
            if load is not None and load.poll() is None:
                load.kill()
            project.leave()
        return self._result

    def _deck(self, faults: int) -> Iterator[FaultKind]:
        return injected_fault.deck(faults, self._rng, self._kinds)

    def _one(self, number: int, kind: FaultKind, probe: AvailabilityProbe) -> FaultResult:
        stage = self._rng.choice(list(Stage))
        broken = self._prepare(stage)
        fault = INJECTORS[kind](self._project, self._rng)
        time.sleep(fault.seconds)
        fault.undo()
        ended = time.monotonic()
        answered_s = self._answered(probe, ended)
        if answered_s > ANSWERED_IN_S:
            broken += (f"nobody answered within {ANSWERED_IN_S:g} s",)
        self._alone = "controller, watchdog" in fault.target
        broken += self._truth()
        broken += self._command()
        if self._alone:
            self._alone = False
            broken += self._truth()
        result = FaultResult(number, stage, kind, fault.target, round(answered_s, 1), broken)
        said = "; ".join(broken) or "held"
        self._say(f"{number:>3} {kind}: {fault.target} ({stage}): {answered_s:.1f} s, {said}")
        return result

    def _prepare(self, stage: Stage) -> tuple[str, ...]:
        """Bring the rollout where the fault shall find it; return what did not work."""
        now = self._status()
        if stage is Stage.NONE:
            self._project.fettle("canary", "abort")
            return ()
        if now["state"] in ("idle", "broken") or is_over(str(now["state"])):
            if now["state"] == "broken":
                self._project.fettle("canary", "abort")
            answer = self._project.begin()
            if "error" in answer:
                return (f"no rollout could be begun: {answer['error']}",)
        if stage is Stage.STEP and self._status()["state"] == "shadow":
            self._project.fettle("canary", "pause")
            self._project.fettle("canary", "resume")
        if stage is Stage.WHOLE:
            self._project.fettle("canary", "promote")
        return ()

    def _answered(self, probe: AvailabilityProbe, ended: float) -> float:
        """Wait until a few probes in a row were answered; return how long after the fault."""
        while (waited := time.monotonic() - ended) <= 2 * ANSWERED_IN_S:
            found = sorted(probe.since(ended), key=lambda one: one.done_s)
            row = [one for one in found if one.answered]
            last_bad = max((one.sent_s for one in found if not one.answered), default=0.0)
            good = [one for one in row if one.sent_s > last_bad]
            if len(good) >= ANSWERS_IN_A_ROW:
                return good[0].done_s - ended
            time.sleep(0.1)
        return waited

    def _status(self) -> dict[str, object]:
        """Return what `fettle canary status --json` would print."""
        return dict(canary_orders.status(self._project.described))

    def _truth(self) -> tuple[str, ...]:
        """Hold what `fettle canary status` says against the router's log, until they agree."""
        deadline, wrong = time.monotonic() + TRUE_IN_S, "it moved all the time"
        while time.monotonic() < deadline:
            try:
                doc = self._status()
                since = time.time()
                time.sleep(SHARE_S)
                if self._status()["state"] == doc["state"]:
                    wrong = self._untrue(doc, since)
            except (FettleError, OSError, ValueError) as err:
                wrong = f"`canary status` ends in {type(err).__name__}: {err}"
            if not wrong and (self._alone or not (wrong := stray_processes.found(self._project))):
                return ()
            time.sleep(0.5)
        return (f"not true within {TRUE_IN_S:g} s: {wrong}",)

    def _untrue(self, doc: Mapping[str, object], since: float) -> str:
        """Say what the log shows that the status does not; "" where they agree."""
        log = self._project.place.router / "attempts.log"
        met = sum(at >= since for at in judged_traffic.begun(log))
        weight, state = float(str(doc["weight_percent"])), doc["state"]
        if met and not weight:
            return f"{met} requests met a challenger of weight 0, state {state}"
        if weight >= SEEN_PERCENT and not met and state != "promoted":
            return f"nobody met the challenger at {weight:g} %, state {state}"
        if self._alone and doc.get("supervisor") == "stopped":
            return ""  # it is said, and the next order starts it again
        if doc.get("supervisor", "running") != "running":
            return "the supervisor is stopped"
        lasting = sorted(name for name in self._problems() if not name.startswith(PASSING))
        return f"problems that do not pass: {', '.join(lasting)}" if lasting else ""

    def _problems(self) -> Mapping[str, str]:
        return self._project.place.problems()

    def _command(self) -> tuple[str, ...]:
        """Give the next order; it is obeyed, or refused in words."""
        verb = self._rng.choice(["pause", "resume"])
        shown = self._project.fettle("canary", "status")
        if shown.code:
            return (f"`canary status` ended with {shown.code}: {shown.err.strip()[-300:]}",)
        done = self._project.fettle("canary", verb)
        said = (done.err or done.out).strip()
        if done.code == 0 or (done.code == 2 and "Traceback" not in said):
            return ()
        return (f"`canary {verb}` ended with {done.code}: {said[-300:]}",)
