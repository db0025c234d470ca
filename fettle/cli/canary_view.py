"""Lay out a rollout's status for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from fettle.rollout.promotion.traffic_statistics import REQUESTS_LEAST
from fettle.rollout.supervisor.status_document import GateRow, RolloutStatus, TallyRow


class NeedRow(TypedDict):
    """User requests that a gate needs in a step, half of equal ones and 95 % of them."""

    step: str
    gate: str
    half: int | None
    most: int | None


class TrafficRow(TypedDict):
    """What traffic is like: shares, and spreads as sample_size.Traffic has them."""

    requests_per_s: float
    errors: float
    latency_spread: float
    cluster_requests: float


class LearntRow(TypedDict):
    """Traffic as the router's log shows it, and what had to be assumed of it."""

    traffic: TrafficRow
    assumed: list[str]
    requests: int
    skipped: int


class ForecastDocument(TypedDict):
    """What `fettle canary plan --json` prints."""

    needs: list[NeedRow]
    requests: int | None
    eta_s: float | None
    at_stake_percent: float
    until_dead: dict[str, int]
    accuracy_margin: float
    disagreement_limit: float
    refusals: list[str]
    advice: list[str]
    traffic: LearntRow


def text(doc: RolloutStatus) -> str:
    """Return the whole status: one line about the rollout, one a gate."""
    if doc["state"] == "idle":
        serving = doc["champion"] or "nothing"
        idle = f"no rollout; serving {serving}. Begin one: fettle canary start"
        if doc["champion"] and not doc.get("serves", True):
            idle = f"no rollout, and nothing serves; {serving} would: fettle serve"
        return "\n".join([idle, *_problems(doc)])
    head = (
        f"{doc['rollout']}  {doc['state']}  {doc['weight_percent']:g} % of the requests to "
        f"{doc['challenger']}, the rest to {doc['champion'] or 'nobody: it is the first release'}"
    )
    why = f"  {doc['reason']}; {doc['requests']} requests judged in this step" + eta(doc["eta_s"])
    titles = ("gate", "verdict", "champion", "challenger", "evidence", "needs", "why")
    table = columns([titles, *(row(gate) for gate in doc["gates"])])
    if decided := doc.get("decided_percent"):
        why += f"\n  nobody judges now: the challenger gets none of its {decided:g} %"
    if not doc.get("serves", True):
        why += "\n  nothing serves: fettle serve goes on with this rollout and its evidence"
    elif doc.get("supervisor") == "stopped":
        why += "\n  the supervisor is stopped: any order starts it again (fettle canary resume)"
    if doc.get("skipped"):
        why += f"\n  left out: {doc['skipped']} lines of the logs that cannot be read"
    return "\n".join([head, why, *_problems(doc), *(table if doc["gates"] else [])])


def _problems(doc: RolloutStatus) -> list[str]:
    """Say what the controller cannot do now, a line each."""
    return [f"  problem: {name}: {why}" for name, why in doc.get("problems", {}).items()]


def forecast(doc: ForecastDocument) -> str:
    """Return what a plan needs: a line a gate, then the time and what is at stake."""
    learnt = doc["traffic"]
    traffic = learnt["traffic"]
    per_s = traffic["requests_per_s"]
    names = ", ".join(learnt["assumed"]).replace("_", " ")
    few = f"of the champion's requests the log holds {learnt['requests']}, {REQUESTS_LEAST} tell"
    assumed = [f"assumed: {names}; {few}"] if names else []
    if learnt.get("skipped"):
        assumed += [f"left out: {learnt['skipped']} lines of the router's log cannot be read"]
    rows = [("step", "gate", "half of equal ones pass by", "95 % by"), *map(_need, doc["needs"])]
    total = "never" if doc["requests"] is None else f"{doc['requests']} requests"
    wait = "" if doc["eta_s"] is None else eta(doc["eta_s"]).removeprefix("; ")
    dead = ", ".join(f"{n} at {step}" for step, n in doc["until_dead"].items())
    return "\n".join(
        [
            f"traffic: {per_s:.3g} requests a second, {100 * traffic['errors']:.2g} % errors, log "
            f"latency spread {traffic['latency_spread']:.2g}, "
            f"{_clusters(traffic['cluster_requests'])}",
            *assumed,
            *columns(rows),
            f"shadow: each image once, then judged: accuracy within {doc['accuracy_margin']:.2%}, "
            f"answers that differ below {doc['disagreement_limit']:.2%} (the plan's, or the least "
            "that so many images decide)",
            f"in all {total} at {per_s:.3g} a second{': ' + wait if wait else ''}",
            f"at stake: {doc['at_stake_percent']:.2g} % of all requests at most; a dead challenger "
            f"gets {dead} before it is rolled back (their users are answered by the champion)",
            *(f"refused: {one}" for one in doc["refusals"]),
            *(f"advice: {one}" for one in doc["advice"]),
        ]
    )


def _clusters(alike: float) -> str:
    return f"bad or slow ones alike over {alike:.0f} requests" if alike else "no clusters"


def _need(need: NeedRow) -> tuple[str, ...]:
    counts = (
        "never" if need[name] is None else f"{need[name]} requests" for name in ("half", "most")
    )
    return (str(need["step"]), str(need["gate"]), *counts)


def rehearsal(docs: Sequence[Mapping[str, object]]) -> str:
    """Return the table of a rehearsal."""
    titles = ("challenger", "ended", "after", "user requests", "failed", "p99", "gate", "why")
    rows = [
        (
            str(doc["case"]),
            str(doc["state"]),
            f"{doc['seconds']:g} s",
            f"{doc['sent']} ({doc['challenger_requests']} to it)",
            str(doc["failed"]),
            f"{doc['p99_ms']:.0f} ms",
            str(doc["gate"]),
            str(doc["reason"]),
        )
        for doc in docs
    ]
    return "\n".join(columns([titles, *rows]))


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Align rows of cells, indented by two."""
    widths = [max(len(line[at]) for line in rows) for at in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(at) for cell, at in zip(line, widths, strict=True)).rstrip()
        for line in rows
    ]


def row(gate: GateRow) -> tuple[str, ...]:
    """Return the cells of one gate."""
    return (
        gate["name"],
        gate["verdict"],
        tally(gate["champion"]),
        tally(gate["challenger"]),
        number(gate["evidence"]),
        number(gate["threshold"]),
        gate["reason"],
    )


def tally(arm: TallyRow | None) -> str:
    """Write "3 of 120", or a dash where the gate does not count."""
    return "-" if arm is None else f"{arm['events']:g} of {arm['n']}"


def number(value: float | None) -> str:
    """Write a number with three digits, or a dash."""
    return "-" if value is None else f"{value:.3g}"


def eta(seconds: float | None) -> str:
    """Write how long it may take, nothing where that is unknown."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"; about {seconds:.0f} s to go"
    minutes = seconds / 60
    return f"; about {minutes:.0f} min to go" if minutes < 90 else f"; about {minutes / 60:.1f} h"
